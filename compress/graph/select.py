"""Which units go: the lowest scores, block by block where blocks must keep equal numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.graph.groups import Coupling

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """Units of one group that may be exchanged for each other: same group, same block of every view."""

    group: str
    units: Ints  # positions in the group


@dataclass(frozen=True)
class Cluster:
    """Groups whose blocks must stay balanced with each other; they lose the same fraction.

    Attributes:
        cells: From each, ``step / steps`` of the units are removed.
        steps: The number of equal steps from nothing to everything; the last is never taken.
    """

    cells: tuple[Cell, ...]
    steps: int

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.group for c in self.cells))


def _block_keys(coupling: Coupling) -> tuple[NDArray[np.uint64], list[Ints]]:
    """By class a number that tells the blocks of all views a unit lies in; and the units that each view ties together.

    Two units have the same number when every view has them equally often in the same blocks.
    """
    classes = coupling.classes
    keys = np.zeros(len(classes.pinned), dtype=np.uint64)
    tied = []
    for number, rows in enumerate(coupling.flow.relations.balances):
        position, unit = classes.units_of(rows.ravel())
        row = position // rows.shape[1]
        code, times = np.unique(unit * len(rows) + row, return_counts=True)
        unit, row = code // len(rows), code % len(rows)
        starts = np.flatnonzero(np.diff(unit, prepend=-1))
        if not len(starts):
            continue
        everywhere = np.diff(starts, append=len(unit)) == len(rows)
        same = everywhere & (np.minimum.reduceat(times, starts) == np.maximum.reduceat(times, starts))
        mixed = _mixed(_mixed(row) + times.astype(np.uint64))
        found, key = unit[starts][~same], np.add.reduceat(mixed, starts)[~same]
        keys[found] = _mixed(keys[found] + key + np.uint64(number + 1))
        tied.append(found)
    return keys, tied


def _mixed(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Spread numbers over 64 bits (the finaliser of splitmix64), so that sums of them do not meet by accident."""
    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def clusters(coupling: Coupling) -> tuple[Cluster, ...]:
    """All groups of a network, those joined by a balance together."""
    keys, tied = _block_keys(coupling)
    parent = list(range(len(coupling.groups)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    group_of = np.full(len(coupling.classes.pinned), -1, dtype=np.int64)
    for i, group in enumerate(coupling.groups):
        group_of[group.units] = i
    held = []  # tied to units of no group, which never go
    for units in tied:
        together = [i for i in np.unique(group_of[units]).tolist() if i >= 0]
        for other in together[1:]:
            parent[root(other)] = root(together[0])
        if together and (group_of[units] < 0).any():
            held.append(together[0])
    cells: dict[int, list[Cell]] = defaultdict(list)
    for i, group in enumerate(coupling.groups):
        _, first, block = np.unique(keys[group.units], return_index=True, return_inverse=True)
        order = np.argsort(block, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(block))[:-1])
        cells[root(i)] += [Cell(group.name, parts[k]) for k in np.argsort(first)]
    fixed = {root(i) for i in held}
    return tuple(
        cluster
        for i, found in cells.items()
        for cluster in ([Cluster(tuple(found), 1)] if i in fixed else _loosened(coupling, found))
    )


def _loosened(coupling: Coupling, cells: list[Cell]) -> list[Cluster]:
    """One cluster; where single units (a head of each kind) would keep all others whole, these stay by themselves."""
    whole = Cluster(tuple(cells), math.gcd(*(len(c.units) for c in cells)))
    loose = [c for c in cells if len(c.units) > 1]
    if whole.steps > 1 or not loose or len(loose) == len(cells) or not _balanced(coupling, loose):
        return [whole]
    single = tuple(c for c in cells if len(c.units) == 1)
    return [Cluster(tuple(loose), math.gcd(*(len(c.units) for c in loose))), Cluster(single, 1)]


def _balanced(coupling: Coupling, cells: list[Cell]) -> bool:
    """Whether every row of every balance loses the same when these cells alone lose the same fraction."""
    moved = np.zeros(len(coupling.classes.pinned), dtype=bool)
    for cell in cells:
        moved[coupling.group(cell.group).units[cell.units]] = True
    for rows in coupling.flow.relations.balances:
        position, unit = coupling.classes.units_of(rows.ravel())
        lost = np.bincount(position[moved[unit]] // rows.shape[1], minlength=len(rows))
        if (lost != lost[0]).any():
            return False
    return True


def lowest(cluster: Cluster, scores: Mapping[str, NDArray[np.floating]], step: int) -> dict[str, Ints]:
    """The units of a cluster that go at ``step``: in every cell those with the lowest scores."""
    removed: dict[str, list[Ints]] = defaultdict(list)
    for cell in cluster.cells:
        count = step * (len(cell.units) // cluster.steps)
        order = np.argsort(scores[cell.group][cell.units], kind="stable")
        removed[cell.group].append(cell.units[order[:count]])
    return {name: np.sort(np.concatenate(parts)) for name, parts in removed.items() if sum(map(len, parts))}


def empty_pieces(coupling: Coupling, alive: NDArray[np.bool_]) -> set[str]:
    """Groups that would have to give back units because a piece of a split, or a whole dim, would be empty."""
    bad: set[str] = set()
    arrays = [*coupling.flow.relations.pieces, *(slot.labels for slot in coupling.flow.slots)]
    for labels in arrays:
        if not alive[labels].any():
            for cls in np.unique(coupling.classes.of_label[labels]).tolist():
                for unit in coupling.classes.expand(cls):
                    if unit in coupling.group_of_unit:
                        bad.add(coupling.groups[coupling.group_of_unit[unit]].name)
    return bad
