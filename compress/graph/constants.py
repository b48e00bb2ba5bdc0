"""Which elements of a network's tensors are the same for every input, proved operation by operation.

The network is run once in float64, and beside every tensor goes a mark on each element that may vary with the input
(see :mod:`compress.graph.spread`). What an element without a mark holds in this run it holds in every other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.calls import bind, op_name
from compress.graph.double import Wide, tree_leaves
from compress.graph.marks import Marked, Marking, random
from compress.graph.spread import spread

LAYERS = {"aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d"}


@dataclass(frozen=True)
class Fact:
    """What is known of one tensor, or of a number that was read from one (shape ()).

    Attributes:
        varies: Elements that may depend on the input, boolean; None for none.
        live: Elements that may differ from zero, boolean.
        value: Whole numbers and truth values that depend on no input.
    """

    varies: Tensor | None
    live: Tensor
    value: Tensor | None = None


@dataclass(frozen=True)
class Read:
    """A tensor among the arguments of a call: result ``index`` of a node with several, else of the node."""

    node: fx.Node
    fact: Fact
    index: int | None = None


@dataclass(frozen=True)
class Call:
    """One call as it was made: arguments by name, tensors as :class:`Read`, and the shapes of its results."""

    node: fx.Node
    op: str
    args: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    many: bool

    def reads(self) -> list[Read]:
        found: list[Read] = []
        fx.node.map_aggregate(tuple(self.args.values()), lambda a: found.append(a) if isinstance(a, Read) else None)
        return found

    def marking(
        self,
        mark: Callable[[Read], Tensor | None],
        uneven: Mapping[str, Tensor] | None = None,
        live: Mapping[str, Tensor] | None = None,
    ) -> Marking:
        """The call with marks on what it reads; ``uneven`` and ``live`` say more of single arguments."""

        def marked(each: Any, name: str) -> Any:
            if not isinstance(each, Read):
                return each
            present = (live or {}).get(name, each.fact.live)
            return Marked(tuple(present.shape), mark(each), present, each.fact.value, (uneven or {}).get(name))

        args = {name: fx.node.map_aggregate(arg, partial(marked, name=name)) for name, arg in self.args.items()}
        return Marking(self.node.target, self.op, args, self.shapes, self.many)


@dataclass(frozen=True)
class Facts:
    """What one run shows.

    Attributes:
        calls: In graph order.
        steady: For each linear layer and convolution the value of every input channel that is one constant at all
            positions, float64 (channels,); NaN for the others.
    """

    calls: tuple[Call, ...]
    steady: dict[fx.Node, Tensor]


def observe(module: fx.GraphModule, inputs: Sequence[Any], source: fx.GraphModule | None = None) -> Facts:
    """Run a network once and prove what of it is constant.

    Args:
        module: A network in float64 (``as_double``).
        inputs: Example inputs.
        source: The graph whose nodes the result speaks of, where ``module`` is a copy of it.
    """
    run = _Observer(module, source or module)
    run.outputs(inputs)
    return Facts(tuple(run.calls), run.steady)


class _Observer(Wide):
    def __init__(self, module: fx.GraphModule, source: fx.GraphModule) -> None:
        super().__init__(module)
        originals = {n.name: n for n in source.graph.nodes}
        self.original = {n: originals[n.name] for n in self.graph.nodes}
        self.facts: dict[fx.Node, Any] = {}
        self.calls: list[Call] = []
        self.steady: dict[fx.Node, Tensor] = {}
        self.overwritten: set[int] = set()  # storages with something that varies in a place that no fact tells

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            result = super().run_node(n)
            self.facts[n] = _facts(result, n.op == "placeholder" or _storage(result) in self.overwritten)
            return result
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        reads = fx.node.map_arg((n.args, dict(n.kwargs)), self._read)
        before = bind(n.target, args, kwargs)
        if op_name(n.target) in LAYERS:
            self.steady[self.original[n]] = _steady(bind(n.target, *reads)["input"].fact, before["input"], n)
        uneven = {name: _uneven(before[name]) for name in _EVEN.get(op_name(n.target), ())}
        result = self.call_function(n.target, args, kwargs)
        self.facts[n] = self._after(n, bind(n.target, *reads), uneven, result)
        for written in _written(n.target, before):
            self._overwrite(n, written)
        return result

    def _read(self, node: fx.Node) -> Any:
        """A node as an argument: what is known of its tensors, or its number."""
        fact = self.facts[node]
        if isinstance(fact, tuple):
            return tuple(Read(self.original[node], f, i) for i, f in enumerate(fact))
        return self.env[node] if fact is None else Read(self.original[node], fact)

    def _after(self, n: fx.Node, args: dict[str, Any], uneven: dict[str, Tensor], result: Any) -> Any:
        if n.target is operator.getitem:
            source: Any
            key: Any
            source, key = n.args
            known = self.facts[source]
            return known[key] if isinstance(known, tuple) else _facts(result, False)
        many = isinstance(result, (tuple, list))
        tensors = [r for r in (result if many else [result]) if isinstance(r, Tensor)]
        shapes = tuple(tuple(r.shape) for r in tensors)
        call = Call(self.original[n], op_name(n.target), args, shapes, many)
        if not tensors:
            numbers = call.op not in _SIZES and any(isinstance(r, (int, float, complex)) for r in tree_leaves(result))
            varied = numbers and any(r.fact.varies is not None for r in call.reads())
            return Fact(torch.ones((), dtype=torch.bool), torch.ones((), dtype=torch.bool)) if varied else None
        self.calls.append(call)
        marking = call.marking(lambda r: None if r.fact.varies is None else r.fact.varies.float(), uneven)
        if not random(marking) and all(m.on is None for m in marking.tensors()):
            return _facts(result, False)
        marks = spread(marking)
        found = tuple(_fact(r, m > 0) for r, m in zip(tensors, marks if many else [marks], strict=True))
        return found if many else found[0]

    def _overwrite(self, n: fx.Node, written: Tensor) -> None:
        """What shares memory with a tensor written in place: the same tensor is the result, others may vary."""
        self.overwritten.add(_storage(written))
        for other, value in self.env.items():
            if isinstance(value, Tensor) and _storage(value) == _storage(written):
                same: Any = value.shape == written.shape and value.stride() == written.stride()
                same = same and value.storage_offset() == written.storage_offset()
                whole = bool(same) and isinstance(self.facts[n], Fact)
                self.facts[other] = self.facts[n] if whole else _facts(value, True)


_ROUNDING = 1e-13  # relative: sums of the same numbers in another order
_SIZES = {"aten::size", "aten::sym_size", "aten::sym_numel", "aten::sym_stride"}
_EVEN = {"aten::scaled_dot_product_attention": ("value",), "aten::embedding": ("weight",)}


def _facts(result: Any, everything: bool) -> Any:
    """What is known of a result that varies as a whole or not at all."""
    if isinstance(result, (tuple, list)):
        return tuple(_facts(r, everything) for r in result)
    if not isinstance(result, Tensor):
        return None
    return _fact(result, torch.ones(result.shape, dtype=torch.bool) if everything else None)


def _fact(value: Tensor, varies: Tensor | None) -> Fact:
    if varies is not None and not bool(varies.any()):
        varies = None
    nonzero = (value != 0) | value.isnan()
    kept = value.clone() if varies is None and not (value.is_floating_point() or value.is_complex()) else None
    return Fact(varies, nonzero if varies is None else nonzero | varies, kept)


def _steady(fact: Fact, x: Tensor, n: fx.Node) -> Tensor:
    """By channel the constant that a layer reads at all positions; NaN where it varies or differs."""
    axis = x.dim() - 1 if op_name(n.target) == "aten::linear" else 1
    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    same = ((rows - rows[:, :1]).abs() <= _ROUNDING * rows[:, :1].abs()).all(1)
    if fact.varies is not None:
        same &= ~fact.varies.movedim(axis, 0).reshape(x.shape[axis], -1).any(1)
    return torch.where(same, rows[:, 0], torch.nan)


def _uneven(x: Tensor) -> Tensor:
    return (x != x[..., :1, :]) | x.isnan()


def _written(target: Any, args: Mapping[str, Any]) -> list[Tensor]:
    """Tensors that a call overwrites."""
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    named = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [args[name] for name in named if isinstance(args.get(name), Tensor)]


def _storage(value: Any) -> int:
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0
