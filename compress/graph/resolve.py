"""From relations between labels to classes: what lives and dies together, and what every index depends on.

Classes are the connected components of the equalities. A class is *pinned* (never removed), *derived* (removed as
soon as one of its components is) or *free*. Free classes are the units of the network.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compress.graph.labels import Pin, Relations

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """For every derived class the free classes whose removal removes it.

    Attributes:
        derived: The derived classes.
        starts: Where in ``flat`` the parts of each start, and at the end its length.
        flat: The parts, one derived class after the other.
    """

    derived: Ints
    starts: Ints
    flat: Ints

    @cached_property
    def entry(self) -> dict[int, tuple[int, ...]]:
        """The parts of each derived class."""
        spans = itertools.pairwise(self.starts.tolist())
        flat = self.flat.tolist()
        return {c: tuple(flat[a:b]) for c, (a, b) in zip(self.derived.tolist(), spans, strict=True)}

    def expanded(self, classes: Ints, count: int) -> tuple[Ints, Ints]:
        """Rows (position in ``classes``, class) with every derived class replaced by its parts; sorted by position.

        Args:
            classes: Any classes.
            count: How many classes there are.
        """
        entry = np.full(count, -1, dtype=np.int64)
        entry[self.derived] = np.arange(len(self.derived))
        found = entry[classes]
        sizes = np.where(found < 0, 1, np.diff(self.starts, append=0)[found])
        position = np.repeat(np.arange(len(classes)), sizes)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        made = found[position]
        taken = np.where(made < 0, 0, self.starts[made] + offset)
        flat = self.flat if len(self.flat) else np.zeros(1, dtype=np.int64)
        return position, np.where(made < 0, classes[position], flat[taken])


@dataclass(frozen=True)
class Classes:
    """Outcome of :func:`resolve`.

    Attributes:
        of_label: Class of every label; class of label 0 is ``of_label[0]`` and pinned.
        pinned: Boolean by class.
        parts: What the derived classes consist of.
        pin_of: For every pinned class the pin that was met first (pinned by consequence: absent).
    """

    of_label: Ints
    pinned: NDArray[np.bool_]
    parts: Parts
    pin_of: dict[int, Pin]

    def expand(self, cls: int) -> tuple[int, ...]:
        """Free classes whose removal removes ``cls``; none if it is pinned."""
        if self.pinned[cls]:
            return ()
        return self.parts.entry.get(cls, (cls,))

    def units_of(self, labels: Ints) -> tuple[Ints, Ints]:
        """Rows (position in ``labels``, unit): every label with the units whose removal removes it."""
        of = self.of_label[labels]
        free = np.flatnonzero(~self.pinned[of])
        position, unit = self.parts.expanded(of[free], len(self.pinned))
        return free[position], unit

    def alive(self, removed: Ints) -> NDArray[np.bool_]:
        """By label: what stays when the free classes ``removed`` go."""
        gone = np.zeros(len(self.pinned), dtype=bool)
        gone[removed] = True
        if len(self.parts.derived):
            gone[self.parts.derived] = np.logical_or.reduceat(gone[self.parts.flat], self.parts.starts[:-1])
        return ~gone[self.of_label]


def _components(relations: Relations, extra: list[tuple[Ints, Ints]]) -> Ints:
    pairs = [*relations.edges, *extra]
    if not pairs:
        return np.arange(relations.count, dtype=np.int64)
    a = np.concatenate([p[0] for p in pairs])
    b = np.concatenate([p[1] for p in pairs])
    matrix = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(relations.count, relations.count))
    return connected_components(matrix, directed=False)[1].astype(np.int64)


def _definition_rows(relations: Relations) -> Ints:
    """All definitions as rows (target, components...), filled with label 0 in front of the components."""
    if not relations.definitions:
        return np.zeros((0, 2), dtype=np.int64)
    width = max(len(d) for d in relations.definitions)
    rows = []
    for definition in relations.definitions:
        table = np.zeros((len(definition[0]), width), dtype=np.int64)
        table[:, 0] = definition[0]
        table[:, width - len(definition) + 1 :] = np.stack(definition[1:], axis=1)
        rows.append(table)
    return np.concatenate(rows)


def resolve(relations: Relations) -> Classes:
    """Solve the relations: merge until every derived class has one definition and none contains itself."""
    rows = _definition_rows(relations)
    extra: list[tuple[Ints, Ints]] = []
    pinned_labels = [np.zeros(1, dtype=np.int64), *(p.labels for p in relations.pins)]
    while True:
        of_label = _components(relations, extra)
        pinned = np.zeros(of_label.max() + 1, dtype=bool)
        pinned[of_label[np.concatenate(pinned_labels)]] = True
        edges, pins = _consequences(rows, of_label, pinned)
        stuck = np.concatenate([pins, _uneven(relations, of_label, pinned)])
        if not len(edges[0]) and not len(stuck):
            stuck = _circular(rows, of_label, pinned)
            if not len(stuck):
                stuck = _half_nested(relations, rows, of_label, pinned)
            if not len(stuck):
                break
        extra.append(edges)
        pinned_labels.append(stuck)
    return _finish(relations, rows, of_label, pinned)


def _consequences(rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> tuple[tuple[Ints, Ints], Ints]:
    """Equalities and pins that follow from the definitions under the classes found so far (as labels)."""
    target, parts = of_label[rows[:, 0]], of_label[rows[:, 1:]]
    live = ~pinned[parts]
    pins = [rows[:, 1:][pinned[target][:, None] & live]]  # a pinned index can lose no component
    dead = ~live.any(1) & ~pinned[target]
    pins.append(rows[dead, 0])  # nothing is left that could remove it
    usable = ~pinned[target] & live.any(1)
    rows, target, parts, live = rows[usable], target[usable], parts[usable], live[usable]
    parts = np.where(live, parts, -1)
    edges: list[tuple[Ints, Ints]] = []

    single = (live.sum(1) == 1) | _same_part(parts)
    last = rows[np.arange(len(rows)), 1 + _last(live)]
    differ = single & (target != of_label[last])
    edges.append((rows[differ, 0], last[differ]))

    own = (parts == target[:, None]) & ~single[:, None]  # defined by itself: the other parts must stay
    circular = own.any(1)
    pins.append(rows[:, 1:][circular[:, None] & live & ~own])

    several = np.flatnonzero(~single & ~circular)
    if len(several):
        _, first, inverse = np.unique(target[several], return_index=True, return_inverse=True)
        reference = several[first[inverse]]
        a, b = _packed(parts[several], rows[several, 1:]), _packed(parts[reference], rows[reference, 1:])
        both = (a > 0) & (b > 0)
        differ2 = both & (of_label[a] != of_label[b])
        edges.append((a[differ2], b[differ2]))
        pins += [a[(a > 0) & (b == 0)], b[(b > 0) & (a == 0)]]
    merged = (np.concatenate([e[0] for e in edges]), np.concatenate([e[1] for e in edges]))
    return merged, np.concatenate(pins)


def _last(live: NDArray[np.bool_]) -> Ints:
    return (live.shape[1] - 1 - np.argmax(live[:, ::-1], axis=1)).astype(np.int64)


def _same_part(parts: Ints) -> NDArray[np.bool_]:
    """Rows whose remaining components are all one class."""
    high = parts.max(1)
    return np.where(parts >= 0, parts == high[:, None], True).all(1) & (high >= 0)


def _packed(parts: Ints, labels: Ints) -> Ints:
    """The labels of the remaining components, moved to the right end; 0 elsewhere."""
    order = np.argsort(parts >= 0, axis=1, kind="stable")
    return np.take_along_axis(np.where(parts >= 0, labels, 0), order, axis=1)


def _uneven(relations: Relations, of_label: Ints, pinned: NDArray[np.bool_]) -> Ints:
    """Labels of balanced rows that hold different numbers of pinned labels: such rows stay whole."""
    found = [np.zeros(0, dtype=np.int64)]
    for rows in relations.balances:
        held = pinned[of_label[rows]]
        counts = held.sum(1)
        if (counts != counts[0]).any() and not held.all():
            found.append(rows[~held])
    return np.concatenate(found)


def _direct(rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Derived classes and, in rows, their components; -1 where a component is pinned or repeated."""
    target, parts = of_label[rows[:, 0]], of_label[rows[:, 1:]]
    live = ~pinned[parts]
    useful = ~pinned[target] & (live & (parts != target[:, None])).any(1)
    target, first = np.unique(target[useful], return_index=True)
    parts = np.where(live, parts, -1)[useful][first]
    for column in range(1, parts.shape[1]):
        again = (parts[:, :column] == parts[:, column : column + 1]).any(1)
        parts[again, column] = -1
    return target, parts


def _circular(rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> Ints:
    """Labels of classes that are defined in a circle: these stay."""
    waiting, parts = _direct(rows, of_label, pinned)
    while len(waiting):
        blocked = np.isin(parts, waiting).any(1)
        if blocked.all():
            return rows[np.isin(of_label[rows[:, 0]], waiting), 0]
        waiting, parts = waiting[blocked], parts[blocked]
    return np.zeros(0, dtype=np.int64)


def _half_nested(relations: Relations, rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> Ints:
    """Labels of blocks inside balanced rows of which another row has no blocks: they stay.

    Where a row loses a fraction of its blocks and of the indices in each, a row of single indices cannot keep up.
    """
    if not relations.balances or not relations.block_labels:
        return np.zeros(0, dtype=np.int64)
    block = np.zeros(len(pinned), dtype=bool)
    block[of_label[np.concatenate(relations.block_labels)]] = True
    block &= ~pinned
    table = np.repeat(np.arange(len(relations.balances)), [len(t) for t in relations.balances])
    width = np.array([t.shape[1] for t in relations.balances])[table]
    parts = _expanded(*_direct(rows, of_label, pinned))
    flat = np.concatenate([t.ravel() for t in relations.balances])
    position, unit = parts.expanded(of_label[flat], len(pinned))
    row = np.repeat(np.arange(len(table)), width)[position[block[unit]]]
    found, counts = np.unique(np.stack([row, unit[block[unit]]]), axis=1, return_counts=True)
    row, unit = found[:, counts < width[found[0]]]  # a block that is the whole row goes with it
    nested = np.zeros(len(table), dtype=bool)
    nested[row] = True
    share = np.bincount(table, nested) / np.bincount(table)
    held = unit[share[table[row]] < 1]
    return np.unique(of_label, return_index=True)[1][held].astype(np.int64)


def _expanded(derived: Ints, rows: Ints) -> Parts:
    """Components that are derived themselves replaced by theirs, until only free classes are left."""
    position, found = np.nonzero(rows >= 0)[0], rows[rows >= 0]
    while True:
        starts = np.searchsorted(position, np.arange(len(derived) + 1))
        parts = Parts(derived, starts, found)
        if not np.isin(found, derived).any():
            return parts
        inner, found = parts.expanded(found, int(max(found.max(), derived.max())) + 1)
        position = position[inner]
        pairs = np.stack([position, found], axis=1)
        _, first = np.unique(pairs, axis=0, return_index=True)
        first.sort()
        position, found = position[first], found[first]


def _finish(relations: Relations, rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> Classes:
    pin_of: dict[int, Pin] = {}
    for pin in relations.pins:
        for cls in np.unique(of_label[pin.labels]).tolist():
            pin_of.setdefault(cls, pin)
    return Classes(of_label, pinned, _expanded(*_direct(rows, of_label, pinned)), pin_of)
