"""A graph as it is judged: computed in float64 throughout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

from compress.graph.slice import attribute

_LOW = (torch.float16, torch.bfloat16, torch.float32)


@contextmanager
def double_by_default() -> Iterator[None]:
    """Tensors that an operation creates without a dtype (``torch.zeros(n)``) are float64 as well."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class WideCasts(TorchFunctionMode):
    """Casts to a lower precision that code asks for by name (``x.float()``, ``dtype=torch.float32``) give float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].double()
        return func(*(_widened(a) for a in args), **{k: _widened(v) for k, v in (kwargs or {}).items()})


def _widened(arg: Any) -> Any:
    return torch.float64 if isinstance(arg, torch.dtype) and arg in _LOW else arg


def as_double(module: fx.GraphModule) -> fx.GraphModule:
    """Copy of a graph module that computes in float64, explicit casts to lower precision included."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    attributes: dict[str, Any] = {}
    done: dict[int, Any] = {}
    for node in module.graph.nodes:
        copy = mapping[node] = graph.node_copy(node, mapping.__getitem__)
        copy.args = fx.node.map_aggregate(node.args, lambda a: _raise(a, mapping))
        copy.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: _raise(a, mapping))
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            if id(value) not in done:
                wide = isinstance(value, Tensor) and value.is_floating_point()
                done[id(value)] = _own(value, wide)
            attributes[str(node.target)] = done[id(value)]
    graph.set_codegen(module.graph._codegen)
    return fx.GraphModule(attributes, graph)


def _own(value: Any, wide: bool) -> Any:
    """A copy, so that operations in place (running statistics) leave the judged network alone."""
    if isinstance(value, fx.GraphModule):  # the body of a higher-order operation
        return as_double(value)
    if not isinstance(value, Tensor):
        return value
    return value.detach().to(torch.float64 if wide else value.dtype, copy=True)


def _raise(arg: Any, mapping: dict[fx.Node, fx.Node]) -> Any:
    if isinstance(arg, fx.Node):
        return mapping[arg]
    return _widened(arg)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested output, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def tree_leaves(tree: Any) -> list[Any]:
    """Everything in a nested output, in order."""
    if isinstance(tree, dict):
        return [leaf for v in tree.values() for leaf in tree_leaves(v)]
    if isinstance(tree, (list, tuple)):
        return [leaf for v in tree for leaf in tree_leaves(v)]
    return [tree]
