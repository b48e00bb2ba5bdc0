"""From a module to a graph of operations on named parameters (``torch.export``, undecomposed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import ModelError
from compress.graph.quiet import quiet


@dataclass(frozen=True)
class Program:
    """A traced network.

    Attributes:
        module: Plain graph module; parameters and buffers keep the names of the original module.
        inputs: The example inputs of the trace (batch of 2 where the batch is dynamic).
        dynamic_batch: Whether any batch size may be run.
    """

    module: fx.GraphModule
    inputs: tuple[Any, ...]
    dynamic_batch: bool


def trace(module: nn.Module, inputs: Sequence[Tensor]) -> Program:
    """Trace ``module`` in its current mode on example inputs whose first dim is the batch.

    Raises:
        ModelError: The module cannot be traced; the message holds the construct that defeats it.
    """
    args = tuple(inputs)
    failure: Exception | None = None
    for dynamic in (True, False):
        examples = tuple(a.detach().clone() for a in args)  # export marks dynamic tensors for good
        shapes = torch.export.ShapesCollection()  # by tensor: fits any signature of forward, *args included
        for example in examples:
            if example.dim():
                shapes[example] = {0: torch.export.Dim.DYNAMIC}
        dims = shapes if dynamic else None
        try:
            with torch.no_grad(), quiet():
                exported = torch.export.export(module, examples, dynamic_shapes=dims, strict=False)
                return Program(plain(exported.module(check_guards=False)), args, dynamic)
        except Exception as error:  # torch.export raises many kinds; the second try is with a fixed batch
            failure = error
    raise ModelError(
        f"the model cannot be traced: {_first_line(failure)}",
        "run it once on the same input to see that it works; data-dependent Python control flow "
        "(an `if` on tensor values) has to be removed or replaced by torch.where",
    ) from failure


def _first_line(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def plain(module: nn.Module) -> fx.GraphModule:
    """A graph module without the guards and the train/eval lock that ``ExportedProgram.module()`` adds.

    What the outputs do not depend on is left out: a weight that nothing reads is no unit that a method may remove.
    """
    if not isinstance(module, fx.GraphModule):
        raise TypeError(f"expected a graph module, got {type(module).__name__}")
    graph = fx.Graph()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
    mapping: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, mapping)
    originals = {copy: node for node, copy in mapping.items()}
    graph.output(output)
    for copy in graph.nodes:
        if copy in originals:
            copy.meta = dict(originals[copy].meta)
    _drop_unread(graph, module)
    graph.set_codegen(module.graph._codegen)
    network = fx.GraphModule(module, graph, class_name="Network")
    network.training = False  # what depends on the mode is a constant in the graph
    return network


def _drop_unread(graph: fx.Graph, module: nn.Module) -> None:
    """Erase operations and floating point tensors without readers; other names of a tensor that is read stay."""
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.op == "get_attr")
    tensors = {n: attribute(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"}
    read = {id(tensor) for node, tensor in tensors.items() if node.users}
    for node, tensor in tensors.items():
        labelled = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        if not node.users and labelled and id(tensor) not in read:
            graph.erase_node(node)


def attribute(module: nn.Module, name: str) -> Any:
    """Parameter, buffer or submodule by its dotted name."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def shape_of(value: Any) -> tuple[int, ...]:
    """Concrete shape of a traced tensor; dynamic sizes by the value of the example input."""
    return tuple(concrete(n) for n in value.shape)


def concrete(size: Any) -> int:
    """A size or symbolic integer as the plain integer it had in the example."""
    if isinstance(size, torch.SymInt):
        node: Any = size.node
        hint = node.hint
        return int(hint) if hint is not None else int(node.guard_int("", 0))
    return int(size)


def owner(node: fx.Node) -> str:
    """Path of the module that owns an operation, "" for the root."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""
