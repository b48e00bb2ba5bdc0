"""Which units go: the lowest scores, block by block where blocks must keep equal numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

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


def _block_keys(coupling: Coupling) -> tuple[dict[int, list[tuple[int, bytes]]], list[set[int]]]:
    """For every unit the blocks of each view it lies in; and the sets of groups that each view ties together."""
    classes = coupling.classes
    keys: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    tied: list[set[int]] = []
    for number, rows in enumerate(coupling.flow.relations.balances):
        members: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for row, labels in enumerate(classes.of_label[rows].tolist()):
            for cls in labels:
                for unit in classes.expand(cls):
                    members[unit][row] += 1
        groups = set()
        for unit, counts in members.items():
            if len(counts) == len(rows) and len(set(counts.values())) == 1:
                continue  # the same in every block: no matter
            keys[unit].append((number, repr(sorted(counts.items())).encode()))
            if unit in coupling.group_of_unit:
                groups.add(coupling.group_of_unit[unit])
        tied.append(groups)
    return keys, tied


def clusters(coupling: Coupling) -> tuple[Cluster, ...]:
    """All groups of a network, those joined by a balance together."""
    keys, tied = _block_keys(coupling)
    parent = list(range(len(coupling.groups)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for groups in tied:
        for other in groups:
            parent[root(other)] = root(min(groups))
    cells: dict[int, list[Cell]] = defaultdict(list)
    for i, group in enumerate(coupling.groups):
        blocks: dict[tuple[tuple[int, bytes], ...], list[int]] = defaultdict(list)
        for position, unit in enumerate(group.units.tolist()):
            blocks[tuple(keys.get(unit, ()))].append(position)
        cells[root(i)] += [Cell(group.name, np.asarray(units)) for units in blocks.values()]
    return tuple(Cluster(tuple(found), math.gcd(*(len(c.units) for c in found))) for found in cells.values())


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
