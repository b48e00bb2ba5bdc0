"""Labels on tensor dimensions, and the relations between them that operations impose.

A *label* is an integer that stands for one index of one dimension of a parameter. Label 0 means "always there".
A :class:`Value` is a tensor as the engine sees it: a shape and a list of :class:`Factor`. A factor is an integer
array of the tensor's rank, of size 1 along every dim it does not depend on; an element of the tensor is removed as
soon as one of its labels is. ``axis`` is the dim that gets shorter when labels of the factor are removed; the other
dims a factor depends on are its *blocks* (each block may lose other indices, but all lose the same number).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Factor:
    """Labels of a tensor along ``axis``; the array has the tensor's rank and size 1 on dims without influence."""

    labels: Labels
    axis: int

    def blocks(self) -> tuple[int, ...]:
        """Dims other than ``axis`` that the labels depend on."""
        return tuple(d for d, n in enumerate(self.labels.shape) if n > 1 and d != self.axis)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: its concrete shape, its factors, and the numbers of a constant list of indices."""

    shape: tuple[int, ...]
    factors: tuple[Factor, ...] = ()
    index: Labels | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    def along(self, axis: int) -> list[Factor]:
        """The factors that shorten ``axis``, coarse before fine."""
        return [f for f in self.factors if f.axis == axis]


@dataclass(frozen=True)
class Pin:
    """Labels that must stay, and why: the operation, the module that owns it, the reason in words."""

    labels: Labels
    op: str
    where: str
    reason: str


@dataclass
class Relations:
    """What the operations of a graph demand of the labels; filled by the rules, read by ``resolve``.

    ``equal`` - both sides are removed together. ``define`` - the target is removed as soon as any component is.
    ``pin`` - never removed. ``balance`` - along the last axis every row keeps the same number of labels.
    ``nonempty`` - at least one label of the array stays.
    """

    count: int = 1
    edges: list[tuple[Labels, Labels]] = field(default_factory=list)
    definitions: list[tuple[Labels, ...]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    balances: list[Labels] = field(default_factory=list)
    pieces: list[Labels] = field(default_factory=list)
    block_labels: list[Labels] = field(default_factory=list)
    op: str = ""
    where: str = ""
    reads_input: bool = False
    splits: dict[bytes, tuple[Labels, ...]] = field(default_factory=dict)
    _balanced: set[tuple[tuple[int, ...], bytes]] = field(default_factory=set)

    def fresh(self, *shape: int) -> Labels:
        """New labels, one for each index of ``shape``."""
        size = int(np.prod(shape))
        labels = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return labels

    def equal(self, a: Labels, b: Labels) -> None:
        """Labels of ``a`` and ``b`` (broadcast against each other) live and die together."""
        a, b = np.broadcast_arrays(a, b)
        differ = a != b
        if differ.any():
            self.edges.append((a[differ], b[differ]))

    def define(self, target: Labels, components: Sequence[Labels]) -> None:
        """``target`` is removed exactly when one of ``components`` is (all broadcast against each other)."""
        if len(components) == 1:
            self.equal(target, components[0])
            return
        arrays = np.broadcast_arrays(target, *components)
        rows = np.unique(np.stack([a.ravel() for a in arrays]), axis=1)
        self.definitions.append(tuple(rows))

    def pin(self, labels: Labels, reason: str) -> None:
        labels = self.distinct(labels)
        labels = labels[labels > 0]
        if labels.size:
            self.pins.append(Pin(labels, self.op, self.where, reason))

    def pin_all(self, factors: Iterable[Factor], reason: str) -> None:
        for factor in factors:
            self.pin(factor.labels, reason)

    def balance(self, labels: Labels, axis: int) -> None:
        """Every row along ``axis`` keeps the same number of labels; nothing to demand of a single row."""
        if labels.size <= labels.shape[axis]:
            return
        rows = distinct_rows(np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis]))
        if len(rows) < 2:
            return
        key = (rows.shape, rows.tobytes())
        if key not in self._balanced:
            self._balanced.add(key)
            self.balances.append(rows)

    def nonempty(self, labels: Labels) -> None:
        self.pieces.append(self.distinct(labels))

    def distinct(self, labels: Labels) -> Labels:
        """The labels of an array, each once and sorted."""
        if labels.size * 16 < self.count or not labels.size:
            return np.unique(labels)
        met = np.zeros(int(labels.max()) + 1, dtype=bool)  # faster than to sort a large array
        met[labels] = True
        return np.flatnonzero(met)

    def align(self, labels: Labels, axis: int) -> Labels:
        """Make the labels equal along ``axis`` and return them with size 1 there."""
        first = np.take(labels, [0], axis=axis)
        self.equal(labels, first)
        return first


def distinct_rows(rows: Labels) -> Labels:
    """The distinct rows of a table in sorted order."""
    ordered = rows[np.argsort(rows[:, 0], kind="stable")]
    new = ordered[1:, 0] != ordered[:-1, 0]
    if not new.all():
        new |= (ordered[1:] != ordered[:-1]).any(1)
        ordered = ordered[np.r_[True, new]]
    if (ordered[1:, 0] != ordered[:-1, 0]).all():  # nearly always, and much faster than to sort whole rows
        return ordered
    return np.unique(ordered, axis=0)


def squeeze_constant(labels: Labels) -> Labels:
    """Reduce to size 1 every dim along which the labels do not change."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = np.take(labels, [0], axis=axis)
            if (labels == first).all():
                labels = first
    return labels


def pad_rank(value: Value, rank: int) -> Value:
    """Prepend dims of size 1, as broadcasting does."""
    extra = rank - value.rank
    if extra <= 0:
        return value
    lead = (1,) * extra
    return Value(
        lead + value.shape,
        tuple(Factor(f.labels.reshape(lead + f.labels.shape), f.axis + extra) for f in value.factors),
    )


def match(relations: Relations, xs: list[Factor], ys: list[Factor]) -> list[Factor]:
    """Demand that two descriptions of one dim remove the same elements; return the more useful one."""
    if not xs or not ys:
        fixed = "the network's input" if relations.reads_input else "a tensor"
        relations.pin_all(xs or ys, f"meets {fixed}, whose size is given along this dimension")
        return []
    if len(xs) == len(ys):
        out = []
        for x, y in zip(xs, ys, strict=True):
            relations.equal(x.labels, y.labels)
            out.append(x if x.labels.size <= y.labels.size else y)
        return out
    short, long = (xs, ys) if len(xs) < len(ys) else (ys, xs)
    shape = np.broadcast_shapes(*(f.labels.shape for f in (*short, *long)))
    target = short[0].labels if len(short) == 1 else relations.fresh(*shape)
    if len(short) > 1:
        relations.define(target, [f.labels for f in short])
    relations.define(target, [f.labels for f in long])
    return long if len(short) == 1 else short


def join(relations: Relations, x: Value, y: Value) -> Value:
    """The value of a pointwise operation on ``x`` and ``y`` under broadcasting."""
    rank = max(x.rank, y.rank)
    x, y = pad_rank(x, rank), pad_rank(y, rank)
    shape = tuple(b if a == 1 else a for a, b in zip(x.shape, y.shape, strict=True))
    factors: list[Factor] = []
    for axis in range(rank):
        xs, ys = x.along(axis), y.along(axis)
        if x.shape[axis] == 1:
            factors += ys
        elif y.shape[axis] == 1:
            factors += xs
        elif xs or ys:
            factors += match(relations, xs, ys)
    return Value(shape, tuple(factors))


def join_all(relations: Relations, values: Sequence[Value]) -> Value:
    out = values[0]
    for value in values[1:]:
        out = join(relations, out, value)
    return out


def reduce(relations: Relations, x: Value, axes: Iterable[int], keepdim: bool = False) -> Value:
    """Sum-like reduction: labels of the reduced axes end here; what depends on these axes as a block is aligned."""
    gone = {a % x.rank for a in axes} if x.rank else set()
    factors = []
    for factor in x.factors:
        if factor.axis in gone:
            continue
        labels = factor.labels
        for axis in gone:
            if labels.shape[axis] > 1:
                labels = relations.align(labels, axis)
        factors.append(Factor(labels, factor.axis))
    if keepdim:
        return Value(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), tuple(factors))
    kept = [d for d in range(x.rank) if d not in gone]
    return permute_take(Value(x.shape, tuple(factors)), kept)


def permute_take(x: Value, dims: Sequence[int]) -> Value:
    """Transpose to ``dims``; dims left out must have no influence on any factor."""
    index = {d: i for i, d in enumerate(dims)}
    dropped = [d for d in range(x.rank) if d not in index]
    factors = []
    for f in x.factors:
        order = [*dims, *dropped]
        labels = f.labels.transpose(order).reshape([f.labels.shape[d] for d in dims])
        factors.append(Factor(labels, index[f.axis]))
    return Value(tuple(x.shape[d] for d in dims), tuple(factors))


def place(x: Value, dims: Sequence[int], rank: int) -> Value:
    """Put dim ``i`` of ``x`` at position ``dims[i]`` of a tensor of ``rank`` dims; the others get size 1."""
    moved = permute_take(x, sorted(range(len(dims)), key=dims.__getitem__))
    shape = [1] * rank
    for d, n in zip(sorted(dims), moved.shape, strict=True):
        shape[d] = n
    factors = []
    for f in moved.factors:
        small = [1] * rank
        for d, n in zip(sorted(dims), f.labels.shape, strict=True):
            small[d] = n
        factors.append(Factor(f.labels.reshape(small), sorted(dims)[f.axis]))
    return Value(tuple(shape), tuple(factors))


def contract(relations: Relations, operands: Sequence[tuple[Value, Sequence[str]]], out: Sequence[str]) -> Value:
    """Sum of products, in named axes: a pointwise product in the frame of all axes, then a sum over all but ``out``.

    ``contract(r, [(x, "nc"), (w, "oc")], "no")`` is ``linear``.
    """
    names: list[str] = []
    for _, axes in operands:
        names += [a for a in axes if a not in names]
    placed = [place(value, [names.index(a) for a in axes], len(names)) for value, axes in operands]
    product = join_all(relations, placed)
    total = reduce(relations, product, [i for i, a in enumerate(names) if a not in out], keepdim=True)
    return permute_take(total, [names.index(a) for a in out])
