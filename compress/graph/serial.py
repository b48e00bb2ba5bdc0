"""A graph module as JSON beside its tensors, and back, without pickle and without the source of the model.

The JSON holds the nodes in order (``torch.fx`` opcodes, functions by name), the nesting of inputs and
outputs, the role of every tensor (parameter or buffer, trainable or not, tied to another), subgraphs of
higher-order operators, and for each node the module that it came from. Containers of a user's or
a library's class in the outputs come back as plain dicts and tuples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from compress.errors import CompressError, InputError, ModelError
from compress.graph.serial_values import (
    LEAF,
    decode,
    decode_nesting,
    dotted,
    encode,
    encode_nesting,
    function,
    function_name,
    identifier,
)

SCHEMA = "compress.graph/1"


def graph_to_json(gm: fx.GraphModule) -> dict[str, Any]:
    """Everything of `gm` but the numbers in its tensors, as values that ``json.dumps`` takes.

    Raises:
        ModelError: The graph holds an operation or a value that cannot be written down; it is named.
    """
    owners: dict[tuple[str, str], int] = {}
    content = _write_graph(gm, owners)
    try:
        made = {"schema": SCHEMA, "tensors": _roles(gm)}
    except InputError as error:  # a name that the reader would refuse
        raise ModelError(f"the model cannot be stored: {error}", error.hint) from error
    return {**made, "owners": [list(owner) for owner in owners], "graph": content}


def graph_tensors(gm: fx.GraphModule) -> dict[str, Tensor]:
    """The tensors to store beside the JSON, by name; one that is known under several names is there once."""
    found = _named_tensors(gm)
    return {name: found[name][1] for name, role in _roles(gm).items() if "same_as" not in role}


def graph_from_json(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """The module that :func:`graph_to_json` described, in eval mode, sharing the memory of `tensors`.

    Args:
        data: The JSON.
        tensors: Parameters and buffers by name; a tied tensor may be given under its first name only.

    Raises:
        InputError: The JSON is damaged, newer than this version, or names anything that is not an operation
            on tensors; or a tensor is missing. Nothing it names is executed by reading it.
    """
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, Mapping) else None
        raise InputError(f"the graph has the schema {found!r}, expected {SCHEMA!r}", "update the package")
    try:
        owners = [(str(path), str(kind)) for path, kind in data["owners"]]
        module = fx.GraphModule(nn.Module(), fx.Graph(), class_name="Network")
        _read_tensors(module, data["tensors"], tensors)
        _read_graph(module, data["graph"], owners, "", frozenset(data["tensors"]))
        return module.eval()
    except CompressError:
        raise
    except RecursionError:
        raise InputError("the stored graph is nested too deeply to be one of a model") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, SyntaxError) as error:
        raise InputError(
            f"the stored graph is damaged: {type(error).__name__}: {error}", "write the file again"
        ) from error


# Writing


def _write_graph(gm: fx.GraphModule, owners: dict[tuple[str, str], int]) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = []
    graphs: dict[str, Any] = {}
    for node in gm.graph.nodes:
        entry: dict[str, Any] = {"op": node.op, "name": node.name}
        if node.op == "get_attr":
            entry["target"] = node.target
            value = _attribute(gm, str(node.target))
            if isinstance(value, fx.GraphModule):
                graphs[str(node.target)] = _write_graph(value, owners)
            elif not isinstance(value, Tensor):
                raise ModelError(f"{node.target!r} of the model is a {type(value).__name__}, which cannot be stored")
        elif node.op == "call_function":
            entry["target"] = function_name(node.target)
        elif node.op == "placeholder":
            entry["target"] = node.target
        elif node.op != "output":
            raise ModelError(f"the graph calls {node.target!r} by {node.op}, which cannot be stored")
        if node.args:
            entry["args"] = [encode(each) for each in node.args]
        if node.kwargs:
            entry["kwargs"] = {key: encode(each) for key, each in node.kwargs.items()}
        if (owner := _owner(node)) is not None:
            entry["owner"] = owners.setdefault(owner, len(owners))
        nodes.append(entry)
    return {"nodes": nodes, "nesting": _write_nesting(gm.graph), "graphs": graphs}


def _owner(node: fx.Node) -> tuple[str, str] | None:
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    path, kind = list(stack.values())[-1][:2]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return None if str(path).startswith("_empty_nn_module_stack") else (str(path), kind)


def _write_nesting(graph: fx.Graph) -> dict[str, Any] | None:
    info = getattr(graph._codegen, "pytree_info", None)
    if info is None:
        return None
    specs = {"inputs": info.in_spec, "outputs": info.out_spec}
    made: dict[str, Any] = {"arguments": list(info.orig_args)}
    for key, spec in specs.items():
        made[key] = None
        if spec is not None:
            example = pytree.tree_unflatten([LEAF] * spec.num_leaves, spec)
            made[key] = encode_nesting(example)
    return made


def _named_tensors(gm: fx.GraphModule) -> dict[str, tuple[str, Tensor]]:
    """Kind and tensor by name: parameters and buffers, then constants that only the graph knows."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, parameter in gm.named_parameters(remove_duplicate=False):
        found[name] = ("parameter", parameter)
    for name, buffer in gm.named_buffers(remove_duplicate=False):
        folder, _, leaf = name.rpartition(".")
        hidden = leaf in gm.get_submodule(folder)._non_persistent_buffers_set
        found[name] = ("constant" if hidden else "buffer", buffer)
    for name, value in _attributes(gm, ""):
        found.setdefault(name, ("constant", value))
    return found


def _attributes(gm: fx.GraphModule, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(gm, str(node.target))
            if isinstance(value, fx.GraphModule):
                yield from _attributes(value, f"{prefix}{node.target}.")
            elif isinstance(value, Tensor):
                yield f"{prefix}{node.target}", value


def _roles(gm: fx.GraphModule) -> dict[str, dict[str, Any]]:
    first: dict[Any, str] = {}
    roles: dict[str, dict[str, Any]] = {}
    for name, (kind, tensor) in _named_tensors(gm).items():
        key: Any = id(tensor)
        if tensor.layout == torch.strided and tensor.numel() and tensor.device.type != "meta":
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        original = first.setdefault((key, kind == "parameter"), dotted(name))
        roles[name] = {"kind": kind} if original == name else {"kind": kind, "same_as": original}
        if tensor.requires_grad:
            roles[name]["requires_grad"] = True
    return roles


def _attribute(module: nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


# Reading


def _read_tensors(
    module: fx.GraphModule, roles: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> None:
    made: dict[str, Tensor] = {}
    for name, role in roles.items():
        source = role.get("same_as", name)
        if source not in tensors:
            raise InputError(f"the tensor {source!r} that the graph needs is missing", "write the file again")
        if source not in made:
            value = tensors[source].detach()
            differentiable = value.is_floating_point() or value.is_complex()
            grad = bool(role.get("requires_grad", False)) and differentiable
            made[source] = nn.Parameter(value, grad) if role["kind"] == "parameter" else value
        *folders, leaf = dotted(name).split(".")
        parent: nn.Module = module
        for folder in folders:
            if folder not in parent._modules:
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        if isinstance(made[source], nn.Parameter):
            parent.register_parameter(leaf, made[source])  # type: ignore[arg-type]
        else:
            parent.register_buffer(leaf, made[source], persistent=role["kind"] == "buffer")


def _read_graph(
    module: fx.GraphModule,
    content: Mapping[str, Any],
    owners: list[tuple[str, str]],
    prefix: str,
    tensors: frozenset[str],
) -> None:
    """Fill `module`, whose tensors are in place already, with the graph and the subgraphs of `content`."""
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for name, inner in content["graphs"].items():
        *folders, leaf = dotted(name).split(".")
        parent = module.get_submodule(".".join(folders))
        child = fx.GraphModule(nn.Module(), fx.Graph(), class_name="Network")
        if leaf in parent._modules:  # its tensors came first
            held = parent._modules.pop(leaf)
            child._modules.update(held._modules)  # type: ignore[union-attr]
            child._parameters.update(held._parameters)  # type: ignore[union-attr]
            child._buffers.update(held._buffers)  # type: ignore[union-attr]
        parent.add_module(leaf, child)
        _read_graph(child, inner, owners, f"{prefix}{name}.", tensors)
    for entry in content["nodes"]:
        name, kind = identifier(entry["name"]), entry["op"]
        if name in nodes:
            raise InputError(f"the graph has two values named {name!r}")
        args = tuple(decode(each, nodes) for each in entry.get("args", ()))
        kwargs = {identifier(key): decode(each, nodes) for key, each in entry.get("kwargs", {}).items()}
        nodes[name] = graph.create_node(
            kind, _target(entry, prefix, tensors, content["graphs"]), args, kwargs, name=name
        )
        if "owner" in entry:
            path, owner = owners[entry["owner"]]
            nodes[name].meta["nn_module_stack"] = {path: (path, owner)}
    graph.lint()
    if content["nesting"] is not None:
        graph.set_codegen(_read_nesting(content["nesting"], graph))
    module.graph = graph


def _target(entry: Mapping[str, Any], prefix: str, tensors: frozenset[str], graphs: Mapping[str, Any]) -> Any:
    kind = entry["op"]
    if kind == "call_function":
        return function(entry["target"])
    if kind == "placeholder":
        return identifier(entry["target"])
    if kind == "get_attr":
        # Only what was registered as a tensor or a subgraph: never a method or attribute of the module
        name = dotted(entry["target"])
        if f"{prefix}{name}" in tensors or name in graphs:
            return name
        raise InputError(f"the graph reads {name!r}, which is neither a tensor nor a subgraph of the file")
    if kind == "output":
        return "output"
    raise InputError(f"the graph holds a node of kind {kind!r}, which is not taken from files")


def _read_nesting(content: Mapping[str, Any], graph: fx.Graph) -> _PyTreeCodeGen:
    arguments = [identifier(name) for name in content["arguments"]]
    shape = decode_nesting(content["inputs"])
    specs = [
        None if content[key] is None else pytree.tree_structure(decode_nesting(content[key]))
        for key in ("inputs", "outputs")
    ]
    leaves = sum(node.op == "placeholder" for node in graph.nodes)
    if specs[0] is None or specs[0].num_leaves != leaves:
        raise InputError("the inputs of the stored graph do not fit its signature")
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], dict):
        for key in shape[1]:
            identifier(key)  # keyword arguments are written into the generated code
    return _PyTreeCodeGen(_PyTreeInfo(arguments, specs[0], specs[1]))
