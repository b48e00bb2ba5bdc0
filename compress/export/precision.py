"""A network in half of its precision: tensors and computation, with inputs and outputs as they were."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from compress.errors import ModelError
from compress.export.program import first_line
from compress.graph import trace
from compress.graph.quiet import quiet

_WIDE = (torch.float32, torch.float64)


def lowered(module: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> fx.GraphModule:
    """The traced network with its floating point tensors in ``dtype``; it casts its inputs, and its outputs back.

    Args:
        module: Left as it is.
        inputs: Examples, batch first.
        dtype: ``torch.float16`` or ``torch.bfloat16``.

    Raises:
        ModelError: The network cannot be traced, or does not run in ``dtype``.
    """
    made = copy.deepcopy(trace(module, inputs).module)
    with torch.no_grad():
        expected = fx.Interpreter(made).run(*(x.clone() for x in inputs), enable_io_processing=False)
    for graph in made.modules():
        if isinstance(graph, fx.GraphModule):
            _lower(graph, dtype)
    made.to(dtype)
    _cast_inputs(made, inputs, dtype)
    _cast_outputs(made, expected)
    made.recompile()
    try:
        with quiet(), torch.no_grad():
            made(*(x.clone() for x in inputs))
    except Exception as error:  # operations raise many kinds
        name = str(dtype).removeprefix("torch.")
        raise ModelError(f"the model does not run in {name}: {first_line(error)}", "leave out --quantize") from error
    return made


def _lower(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Constants of the graph, and types that its operations name."""
    for node in module.graph.nodes:
        node.args = map_aggregate(node.args, lambda a: dtype if a in _WIDE else a)
        node.kwargs = map_aggregate(node.kwargs, lambda a: dtype if a in _WIDE else a)
        if node.op == "get_attr":
            *folders, leaf = str(node.target).split(".")
            owner = module.get_submodule(".".join(folders))
            value = getattr(owner, leaf)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.is_floating_point():
                setattr(owner, leaf, value.to(dtype))
    module.recompile()


def _cast_inputs(module: fx.GraphModule, inputs: Sequence[Tensor], dtype: torch.dtype) -> None:
    graph = module.graph
    places = [node for node in graph.nodes if node.op == "placeholder"]
    for node, x in zip(places, inputs, strict=True):
        if x.is_floating_point():
            with graph.inserting_before(places[-1].next):
                cast = graph.call_function(torch.ops.aten.to.dtype, (node, dtype))
            node.replace_all_uses_with(cast, delete_user_cb=lambda user, cast=cast: user is not cast)


def _cast_outputs(module: fx.GraphModule, expected: Any) -> None:
    """Back to what each output was."""
    graph = module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    types = {}

    def note(node: Any, value: Any) -> None:
        if isinstance(node, fx.Node) and isinstance(value, Tensor) and value.is_floating_point():
            types[node] = value.dtype
        elif isinstance(node, (list, tuple)):
            for inner, got in zip(node, value, strict=True):
                note(inner, got)
        elif isinstance(node, dict):
            for key in node:
                note(node[key], value[key])

    note(output.args[0], expected)
    casts = {}
    for node, dtype in types.items():
        with graph.inserting_before(output):
            casts[node] = graph.call_function(torch.ops.aten.to.dtype, (node, dtype))
    output.args = fx.node.map_arg(output.args, lambda node: casts.get(node, node))
