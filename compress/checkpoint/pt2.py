"""Read a ``torch.export`` archive (.pt2) without running anything that is in it.

``torch.export.load`` (its source, as of torch 2.15) runs what the file says in several places: sample
inputs are unpickled with ``weights_only=False`` when the safe way fails, weights and constants marked
``use_pickle`` always are, and so are custom objects; symbolic sizes go through ``sympy.sympify``, which
evaluates Python; guards are compiled with ``exec``; and operators are looked up by attribute from
``torch``, which reaches ``torch.os``.

So the archive is read here: the graph is JSON, the weights are raw bytes. Sample inputs, guards, sizes
written as expressions and metadata are not read at all; operators must be registered ones of a few
namespaces; names that end up in generated code are checked; weights that are pickles go through
``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import io
import json
import operator
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from compress.checkpoint.pt2_ops import Unreadable, argument, checked_dtype, checked_name, operator_of
from compress.checkpoint.tensors import register
from compress.errors import InputError
from compress.inputs import InputType, recorded_type

_SCHEMA_MAJOR = 8
_AGAIN = "export the model again with torch.export.save, or give its state dict and --arch"
_KEYWORD = 2  # the kind of an argument given by name


@dataclass(frozen=True)
class Archive:
    """The module of an archive, and the shape of each input without the batch (its first dimension) and its type."""

    module: fx.GraphModule
    input_shapes: tuple[tuple[int, ...], ...]
    input_types: tuple[InputType, ...]


def read_pt2(path: Path) -> Archive:
    """The exported program in `path` as a plain ``fx.GraphModule`` under its original parameter names.

    A batch that was exported as dynamic stays dynamic: sizes are computed by nodes of the graph.

    Raises:
        InputError: The archive is damaged, made by another schema, or uses what cannot be read safely.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except Unreadable as error:
        raise InputError(f"{path}: {error}", _AGAIN) from error
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is truncated or damaged: {error}", "export and save it again") from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is not the torch.export archive it should be: {type(error).__name__}: {error}",
            _AGAIN,
        ) from error


def _read(archive: zipfile.ZipFile) -> Archive:
    files = {name.partition("/")[2]: name for name in archive.namelist()}
    matches = (re.fullmatch(r"models/([^/]+)\.json", name) for name in files)
    models = [match[1] for match in matches if match]
    if len(models) != 1:
        raise Unreadable(f"it holds {len(models)} exported programs, one is needed")
    program = json.loads(archive.read(files[f"models/{models[0]}.json"]))
    major = program["schema_version"]["major"]
    if major != _SCHEMA_MAJOR:
        raise Unreadable(f"version {major} of the export schema is not known, only {_SCHEMA_MAJOR}")
    tensors: dict[str, torch.Tensor] = {}
    for folder in ("weights", "constants"):
        name = files.get(f"data/{folder}/{models[0]}_{folder}_config.json")
        if name is None:
            raise Unreadable(f"its {folder} are missing, or in a format that torch has given up")
        entries = json.loads(archive.read(name))["config"]
        tensors |= _tensors(archive, files, f"data/{folder}/", entries)
    return _program(program["graph_module"], tensors)


def _tensors(
    archive: zipfile.ZipFile, files: dict[str, str], folder: str, entries: dict[str, Any]
) -> dict[str, torch.Tensor]:
    stored: dict[tuple[str, torch.dtype], torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}
    views: dict[Any, torch.Tensor] = {}  # of one storage: tied weights stay tied
    for name, entry in entries.items():
        record, meta = entry["path_name"], entry["tensor_meta"]
        if entry["use_pickle"]:
            made[name] = _unpickled(archive.read(files[folder + record]), name)
            continue
        if meta is None:
            raise Unreadable(f"constant {name!r} is a Python object, which is not loaded")
        dtype = checked_dtype(meta["dtype"])
        size, stride = _numbers(meta["sizes"]), _numbers(meta["strides"])
        offset = _number(meta["storage_offset"])
        key = (record, dtype, size, stride, offset)
        if key not in views:
            if (record, dtype) not in stored:
                raw = bytearray(archive.read(files[folder + record]))
                stored[record, dtype] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            # as_strided checks that the view lies within its storage
            view = torch.as_strided(stored[record, dtype], size, stride, offset)
            grad = bool(meta["requires_grad"]) and dtype.is_floating_point
            views[key] = nn.Parameter(view, requires_grad=grad) if entry["is_param"] else view
        made[name] = views[key]
    return made


def _unpickled(raw: bytes, name: str) -> torch.Tensor:
    try:
        value = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign pickle raises, it is refused
        raise Unreadable(f"{name!r} is a pickle of more than a tensor, which is not loaded") from error
    if not isinstance(value, torch.Tensor):
        raise Unreadable(f"{name!r} is a {type(value).__name__}, not a tensor")
    return value


@dataclass
class _Building:
    """A graph under construction: `values` are its nodes by the names that the archive gives them."""

    root: nn.Module
    graph: fx.Graph = field(default_factory=fx.Graph)
    values: dict[str, fx.Node] = field(default_factory=dict)

    def subgraph(self, name: str, content: Mapping[str, Any]) -> fx.Node:
        """A node for the graph that a higher-order operator takes."""
        checked_name(name)
        inner = _Building(nn.Module())
        for each in content["inputs"]:
            label = each["as_tensor"]["name"]
            inner.values[label] = inner.graph.placeholder(checked_name(label))
        for node in content["nodes"]:
            _add(inner, node)
        outputs = [argument(each, inner.values, inner.subgraph) for each in content["outputs"]]
        inner.graph.output(outputs[0] if content["is_single_tensor_return"] else tuple(outputs))
        if not hasattr(self.root, name):
            self.root.add_module(name, fx.GraphModule(inner.root, inner.graph))
        return self.graph.get_attr(name)


def _program(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Archive:
    built, graph, signature = _Building(nn.Module()), content["graph"], content["signature"]
    shapes, types = [], []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input" and "as_tensor" in value["arg"]:
            label = value["arg"]["as_tensor"]["name"]
            built.values[label] = built.graph.placeholder(checked_name(label))
            meta = graph["tensor_values"][label]
            shapes.append(_shape(meta["sizes"], label))
            types.append(recorded_type({"dtype": str(checked_dtype(meta["dtype"])).removeprefix("torch.")}))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            name = value[f"{kind}_name"] if kind != "tensor_constant" else value["tensor_constant_name"]
            register(built.root, checked_name(name), tensors[name])
            built.values[value["arg"]["name"]] = built.graph.get_attr(name)
        else:
            raise Unreadable(f"an input that is no tensor ({kind}) cannot be read")
    for node in graph["nodes"]:
        _add(built, node)
    built.graph.output(_output(built, content))
    module = fx.GraphModule(built.root, built.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    module.graph.lint()
    return Archive(module, tuple(shapes), tuple(types))


def _output(built: _Building, content: dict[str, Any]) -> Any:
    results = []
    for spec in content["signature"]["output_specs"]:
        ((kind, value),) = spec.items()
        if kind in ("user_output", "loss_output"):
            arg = value["arg"] if kind == "user_output" else {"as_tensor": value["arg"]}
            results.append(argument(arg, built.values, built.subgraph))
        elif kind == "buffer_mutation":
            source = built.values[value["arg"]["name"]]
            target = built.graph.get_attr(value["buffer_name"])
            built.graph.call_function(torch.ops.aten.copy_.default, (target, source))
        else:
            raise Unreadable(f"an output of kind {kind} cannot be read")
    calls = content["module_call_graph"]
    spec = next((each["signature"]["out_spec"] for each in calls if each["fqn"] == ""), None)
    return _nested(json.loads(spec)[1], iter(results)) if spec else results[0]


def _nested(spec: dict[str, Any], leaves: Any) -> Any:
    kind = spec["type"]
    if kind is None:
        return next(leaves)
    children = [_nested(each, leaves) for each in spec["children_spec"]]
    if kind == "builtins.tuple":
        return tuple(children)
    if kind == "builtins.list":
        return children
    if kind in ("builtins.dict", "collections.OrderedDict"):
        keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
        return {checked_name(key): child for key, child in zip(keys, children, strict=True)}
    raise Unreadable(f"an output of type {kind} cannot be read")


def _add(built: _Building, node: dict[str, Any]) -> None:
    """Append a serialised call to the graph, and give its results the names later nodes ask for."""
    target = operator_of(node["target"])
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for given in node["inputs"]:
        value = argument(given["arg"], built.values, built.subgraph)
        if given.get("kind") == _KEYWORD:
            kwargs[checked_name(given["name"])] = value
        else:
            args.append(value)
    name = checked_name(node["name"]) if node.get("name") else None
    made = built.graph.create_node("call_function", target, tuple(args), kwargs, name)
    outputs = node["outputs"]
    if len(outputs) == 1 and "as_tensors" not in outputs[0]:
        # A higher-order operator may return a tuple of one
        if not isinstance(target, torch._ops.HigherOrderOperator) or node.get("is_hop_single_tensor_return"):
            _bind(built, outputs[0], made)
            return
    elif len(outputs) == 1:
        outputs = [{"as_tensor": each} for each in outputs[0]["as_tensors"]]
    for index, each in enumerate(outputs):
        if "as_none" not in each:
            _bind(built, each, built.graph.call_function(operator.getitem, (made, index)))


def _bind(built: _Building, output: dict[str, Any], made: fx.Node) -> None:
    ((kind, value),) = output.items()
    if kind == "as_tensors":
        for index, each in enumerate(value):
            _bind(built, {"as_tensor": each}, built.graph.call_function(operator.getitem, (made, index)))
    elif kind != "as_none":
        built.values[value["name"] if kind == "as_tensor" else value["as_name"]] = made


def _shape(sizes: list[Any], label: str) -> tuple[int, ...]:
    """The sizes after the batch; a symbolic one is taken at the value it was exported with."""
    if not sizes:
        raise Unreadable(f"input {label!r} is a single number, without a batch")
    return tuple(_number(each) for each in sizes[1:])


def _numbers(sizes: list[Any]) -> tuple[int, ...]:
    return tuple(_number(each) for each in sizes)


def _number(size: dict[str, Any]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    hint = size["as_expr"].get("hint")
    if not hint:
        raise Unreadable("a size has no value")
    return int(hint["as_int"])
