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
class Classes:
    """Outcome of :func:`resolve`.

    Attributes:
        of_label: Class of every label; class of label 0 is ``of_label[0]`` and pinned.
        pinned: Boolean by class.
        parts: For every derived class the free classes whose removal removes it (others are absent).
        pin_of: For every pinned class the pin that was met first (pinned by consequence: absent).
    """

    of_label: Ints
    pinned: NDArray[np.bool_]
    parts: dict[int, tuple[int, ...]]
    pin_of: dict[int, Pin]

    def expand(self, cls: int) -> tuple[int, ...]:
        """Free classes whose removal removes ``cls``; none if it is pinned."""
        if self.pinned[cls]:
            return ()
        return self.parts.get(cls, (cls,))

    def alive(self, removed: Ints) -> NDArray[np.bool_]:
        """By label: what stays when the free classes ``removed`` go."""
        gone = np.zeros(len(self.pinned), dtype=bool)
        gone[removed] = True
        derived, starts, parts = self.parts_table
        if len(derived):
            gone[derived] = np.logical_or.reduceat(gone[parts], starts[:-1])
        return ~gone[self.of_label]

    @cached_property
    def parts_table(self) -> tuple[Ints, Ints, Ints]:
        """``parts`` as arrays: the derived classes, where the parts of each start (and end), and all parts."""
        derived = np.fromiter(self.parts, dtype=np.int64, count=len(self.parts))
        starts = np.cumsum([0, *map(len, self.parts.values())], dtype=np.int64)
        flat = itertools.chain.from_iterable(self.parts.values())
        return derived, starts, np.fromiter(flat, dtype=np.int64, count=int(starts[-1]))


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


def _direct(rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> dict[int, tuple[int, ...]]:
    """The components of every derived class, pinned ones left out."""
    target, parts = of_label[rows[:, 0]], of_label[rows[:, 1:]]
    live = ~pinned[parts]
    useful = ~pinned[target] & (live & (parts != target[:, None])).any(1)
    target, parts, live = target[useful], parts[useful], live[useful]
    target, first = np.unique(target, return_index=True)
    rows_of = zip(target.tolist(), parts[first].tolist(), live[first].tolist(), strict=True)
    return {t: tuple(dict.fromkeys(itertools.compress(row, held))) for t, row, held in rows_of}


def _ordered(direct: dict[int, tuple[int, ...]]) -> tuple[list[int], set[int]]:
    """Derived classes, parts before wholes; and those that contain themselves by way of others."""
    waiting = dict(direct)
    order: list[int] = []
    while True:
        ready = [t for t, parts in waiting.items() if waiting.keys().isdisjoint(parts)]
        if not ready:
            return order, set(waiting)
        order += ready
        for t in ready:
            del waiting[t]


def _circular(rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> Ints:
    """Labels of classes that are defined in a circle: these stay."""
    _, circle = _ordered(_direct(rows, of_label, pinned))
    return rows[np.isin(of_label[rows[:, 0]], list(circle)), 0] if circle else np.zeros(0, dtype=np.int64)


def _finish(relations: Relations, rows: Ints, of_label: Ints, pinned: NDArray[np.bool_]) -> Classes:
    direct = _direct(rows, of_label, pinned)
    expanded: dict[int, tuple[int, ...]] = {}
    for t in _ordered(direct)[0]:
        parts = direct[t]
        if not expanded.keys().isdisjoint(parts):
            parts = tuple(dict.fromkeys(c for p in parts for c in expanded.get(p, (p,))))
        expanded[t] = parts
    pin_of: dict[int, Pin] = {}
    for pin in relations.pins:
        for cls in np.unique(of_label[pin.labels]).tolist():
            pin_of.setdefault(cls, pin)
    return Classes(of_label, pinned, expanded, pin_of)
