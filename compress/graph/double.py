"""A graph as it is judged: computed in float64 throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from compress.graph.arguments import map_leaves
from compress.graph.calls import op_name
from compress.graph.narrow import CALLED, WRITTEN_OUT
from compress.graph.slice import attribute
from compress.graph.untouched import untouched

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


@contextmanager
def same_draws() -> Iterator[None]:
    """Networks that are compared draw the same numbers, where they are random in eval mode as autoencoders may be."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


class WideCasts(TorchFunctionMode):
    """Casts to a lower precision that code asks for by name (``x.float()``, ``dtype=torch.float32``) give float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].double()
        func = CALLED.get(func, func)
        return func(*(_widened(a) for a in args), **{k: _widened(v) for k, v in (kwargs or {}).items()})


def _widened(arg: Any) -> Any:
    return torch.float64 if isinstance(arg, torch.dtype) and arg in _LOW else arg


def as_double(module: fx.GraphModule) -> fx.GraphModule:
    """Copy of a graph module that computes in float64, explicit casts to lower precision included."""
    done: dict[int, Any] = {}
    wide = _raised(module)
    for node in wide.graph.nodes:
        if node.op == "get_attr":
            value = attribute(wide, str(node.target))
            if id(value) not in done:
                done[id(value)] = _own(value)
    names = {str(n.target): done[id(attribute(wide, str(n.target)))] for n in wide.graph.nodes if n.op == "get_attr"}
    return fx.GraphModule(names, wide.graph)


def _raised(module: fx.GraphModule) -> fx.GraphModule:
    """A graph module that shares its tensors with ``module`` and casts to nothing below float64."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        copy = mapping[node] = graph.node_copy(node, mapping.__getitem__)
        copy.args = fx.node.map_aggregate(node.args, lambda a: _raise(a, mapping))
        copy.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: _raise(a, mapping))
    graph.set_codegen(module.graph._codegen)
    return fx.GraphModule(module, graph)


@dataclass(frozen=True)
class _Stored:
    """A parameter in its own precision, widened when an operation reads it."""

    tensor: Tensor


class Wide(fx.Interpreter):
    """Runs a graph in float64 without a second copy of its parameters: each is widened for as long as it is read."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(_raised(module), garbage_collect_values=True)
        self._own: dict[int, Any] = {}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = attribute(self.module, str(target))
        if isinstance(value, nn.Parameter):
            return _Stored(value.detach())
        if id(value) not in self._own:
            self._own[id(value)] = _own(value)
        return self._own[id(value)]

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return fx.node.map_aggregate((args, kwargs), lambda a: _own(a.tensor) if isinstance(a, _Stored) else a)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return WRITTEN_OUT.get(op_name(target), target)(*args, **kwargs)

    def outputs(self, inputs: Sequence[Any]) -> list[Tensor]:
        """The tensors of the result, in order."""
        with torch.no_grad(), double_by_default(), same_draws():
            return leaves(self.run(*widened(inputs), enable_io_processing=False))


def widened(inputs: Sequence[Any]) -> list[Any]:
    """Floating point tensors in float64, everything else as it is."""
    return [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]


@contextmanager
def widened_module(module: nn.Module) -> Iterator[nn.Module]:
    """The module with its tensors in float64 for a while, and then as it was."""
    tensors = [*module.parameters(), *module.buffers()]
    saved = [(t, t.data, t.data.clone() if not t.is_floating_point() else None) for t in tensors]
    with untouched(module):
        try:
            for tensor, data, whole in saved:
                tensor.data = data.double() if whole is None else whole
            yield module
        finally:
            for tensor, data, _ in saved:
                tensor.data = data


def _own(value: Any) -> Any:
    """A copy, so that operations in place (running statistics) leave the judged network alone."""
    if isinstance(value, fx.GraphModule):  # the body of a higher-order operation
        return as_double(value)
    if not isinstance(value, Tensor):
        return value
    wide = torch.float64 if value.is_floating_point() else value.dtype
    return value.detach().to(wide, copy=True)


def _raise(arg: Any, mapping: dict[fx.Node, fx.Node]) -> Any:
    if isinstance(arg, fx.Node):
        return mapping[arg]
    return _widened(arg)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested output, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def tree_leaves(tree: Any) -> list[Any]:
    """Everything in a nested output, in order."""
    found: list[Any] = []
    map_leaves(tree, found.append)
    return found
