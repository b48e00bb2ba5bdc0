"""One table of label rules and one of rewrites, keyed by operation name (``aten::conv2d``).

A *rule* says what an operation does to labels; a *rewrite* says which constants of the call change when its tensors
get smaller. An operation without a rule pins what goes into it, which is always sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from compress.graph.labels import Factor, Relations, Value

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One operation of the graph as a rule sees it.

    Attributes:
        op: Name such as ``aten::conv2d``.
        args: Arguments by their schema name; tensors as :class:`Value`, sizes as plain integers.
        shapes: Concrete shapes of the results.
        relations: Where the rule writes what it demands.
        unread: Positions of results that nothing reads, such as the indices of a maximum.
        node: The call in the graph, for rules that ask where an argument comes from.
    """

    op: str
    args: dict[str, Any]
    shapes: tuple[Shape, ...]
    relations: Relations
    unread: frozenset[int] = frozenset()
    node: fx.Node | None = None

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        value = self.args.get(name)
        return default if value is None else value

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    def values(self) -> list[Value]:
        """All tensors among the arguments, in order, lists of tensors included."""
        found: list[Value] = []
        for arg in self.args.values():
            if isinstance(arg, Value):
                found.append(arg)
            elif isinstance(arg, (list, tuple)):
                found += [a for a in arg if isinstance(a, Value)]
        return found


Result = Value | Sequence[Value]
Rule = Callable[[Call], Result]


class Kept:
    """Which labels stay, and the sizes that follow from it."""

    def __init__(self, alive: np.ndarray) -> None:
        self.alive = alive

    def mask(self, value: Value, axis: int) -> np.ndarray:
        """Boolean array over the tensor's dims (size 1 without influence): the elements that stay along ``axis``."""
        mask: np.ndarray = np.ones((1,) * value.rank, dtype=bool)
        for factor in value.along(axis):
            mask = mask & self.alive[factor.labels]
        return mask

    def element_mask(self, value: Value) -> np.ndarray | None:
        """The elements of a tensor that stay, broadcastable to its shape; None when all do."""
        mask: np.ndarray = np.ones((1,) * value.rank, dtype=bool)
        for factor in value.factors:
            mask = mask & self.alive[factor.labels]
        return None if mask.all() else mask

    def count(self, value: Value, axis: int, start: int = 0, stop: int | None = None) -> int:
        """How many of the indices ``start:stop`` of ``axis`` stay; all blocks that stay agree."""
        size = value.shape[axis]
        stop = size if stop is None else min(stop, size)
        if not value.along(axis) or stop <= start:
            return max(stop - start, 0)
        mask = np.moveaxis(self.mask(value, axis), axis, -1)
        mask = np.broadcast_to(mask, (*mask.shape[:-1], size))[..., start:stop]
        rows = mask.sum(-1)
        counts = np.unique(rows)
        if len(counts) > 1:  # blocks that are removed as a whole do not count
            counts = np.unique(rows[self._present(value, axis, rows.shape)])
            counts = counts[counts > 0] if len(counts) > 1 else counts
        if len(counts) > 1:
            raise UnbalancedError(f"blocks keep different counts {counts.tolist()} along dim {axis}")
        return int(counts[0]) if len(counts) else 0

    def _present(self, value: Value, axis: int, shape: Shape) -> np.ndarray:
        """Boolean array of ``shape`` over the dims other than ``axis``: the blocks that no other dim removes."""
        mask: np.ndarray = np.ones((1,) * value.rank, dtype=bool)
        for factor in value.factors:
            if factor.axis != axis:
                mask = mask & self.alive[factor.labels]
        mask = np.any(mask, axis=axis)
        mask = np.any(mask, axis=tuple(d for d, n in enumerate(shape) if n == 1), keepdims=True)
        return np.broadcast_to(mask, shape)

    def vector(self, value: Value, axis: int) -> np.ndarray:
        """Boolean vector over ``axis``: the indices that stay (of the first block, where blocks differ)."""
        mask = np.moveaxis(self.mask(value, axis), axis, -1)
        return np.broadcast_to(mask.reshape(-1, mask.shape[-1])[0], (value.shape[axis],))

    def shape(self, value: Value) -> Shape:
        return tuple(self.count(value, axis) for axis in range(value.rank))


class UnbalancedError(ValueError):
    """The blocks of a view would keep different numbers of indices."""


@dataclass(frozen=True)
class Cut:
    """One operation of the graph as a rewrite sees it: its call, its results, and what is kept.

    A rewrite returns the arguments to change, by schema name.
    """

    call: Call
    outs: tuple[Value, ...]
    kept: Kept

    @property
    def out(self) -> Value:
        return self.outs[0]

    def __getitem__(self, name: str) -> Any:
        return self.call.args[name]

    def new_shape(self) -> list[int]:
        """Sizes of the first result after slicing."""
        return list(self.kept.shape(self.out))


Rewrite = Callable[[Cut], dict[str, Any]]

RULES: dict[str, Rule] = {}
REWRITES: dict[str, Rewrite] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a label rule for the named operations (``"aten::conv2d"``, ``"mylib::my_op"``)."""

    def add(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return add


def rewrite(*ops: str) -> Callable[[Rewrite], Rewrite]:
    """Register which constants of the named operations change when tensors shrink."""

    def add(function: Rewrite) -> Rewrite:
        for op in ops:
            REWRITES[op] = function
        return function

    return add


def fixed(call: Call, reason: str) -> Result:
    """Pin everything that goes in; the results carry no labels."""
    for value in call.values():
        call.relations.pin_all(value.factors, reason)
    results = tuple(Value(shape) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


def only(call: Call, value: Value, axes: Sequence[int], reason: str) -> tuple[Factor, ...]:
    """Factors of ``value`` along ``axes``; the others are pinned for ``reason``."""
    allowed = {a % value.rank for a in axes}
    kept = []
    for factor in value.factors:
        if factor.axis in allowed:
            kept.append(factor)
        else:
            call.relations.pin(factor.labels, reason)
    return tuple(kept)


def mixing(call: Call, value: Value, axes: Sequence[int]) -> Value:
    """``value`` as an operation needs it that mixes the positions along ``axes``.

    A factor that shortens another dim must remove the same indices at every one of these positions: where its labels
    differ by position they are made equal.
    """
    mixed = {a % value.rank for a in axes}
    factors = []
    for factor in value.factors:
        labels = factor.labels
        for axis in () if factor.axis in mixed else mixed:
            if labels.shape[axis] > 1:
                labels = call.relations.align(labels, axis)
        factors.append(Factor(labels, factor.axis))
    return Value(value.shape, tuple(factors))
