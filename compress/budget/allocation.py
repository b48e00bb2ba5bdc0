"""How a budget is spread over the layers: in which order clusters take their steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.budget.align import Ints, rungs
from compress.budget.kinds import Scores
from compress.budget.scope import fractions
from compress.errors import InputError
from compress.graph import Cluster, Coupling

By = Literal["local", "global", "block"]
Floats = NDArray[np.float64]

MOST = 0.9  # of a cluster's units may go where all are ranked together, so that no layer collapses


@dataclass(frozen=True)
class Allocation:
    """How a budget becomes widths.

    Attributes:
        by: ``local`` - every cluster loses the same fraction; ``global`` - all units are ranked together by their
            scores as they are; ``block`` - ranked together by score over the mean score of their block, the module
            that holds their layer. Ranked together, a cluster loses ``MOST`` of its units at most.
        ratio_of: Globs on layer names and the fraction that the clusters they match lose, whatever the budget; the
            last that matches holds.
        round_to: Widths that are smaller than before are multiples of it.
    """

    by: By = "local"
    ratio_of: tuple[tuple[str, float], ...] = ()
    round_to: int = 1

    def __post_init__(self) -> None:
        for glob, fraction in self.ratio_of:
            if not 0 <= fraction < 1:
                raise InputError(f"--ratio-of {glob}={fraction:g}: the fraction must be at least 0 and below 1")
        if self.round_to < 1:
            raise InputError(f"--round-to must be at least 1, got {self.round_to}")


@dataclass(frozen=True)
class Stairs:
    """The steps at which clusters may stand, and which of them a budget may choose.

    Attributes:
        rungs: By cluster the steps, from 0 upwards.
        start: By cluster the position among its rungs at which it begins.
        top: By cluster the position beyond which it may not go; that of ``start`` where it is fixed.
        fixed: By cluster whether its fraction was given.
    """

    rungs: tuple[Ints, ...]
    start: Ints
    top: Ints
    fixed: tuple[bool, ...]

    def steps(self, positions: Ints) -> list[int]:
        """By cluster the step that it stands at."""
        return [int(rung[p]) for rung, p in zip(self.rungs, positions, strict=True)]


def stairs(coupling: Coupling, found: Sequence[Cluster], allocation: Allocation, gone: Sequence[int]) -> Stairs:
    """Where every cluster begins and how far it may go.

    Args:
        coupling: The analysed network.
        found: What may shrink.
        allocation: How the budget is spread.
        gone: By cluster the steps that it has lost already.

    Raises:
        InputError: A glob of the allocation matches no layer that may shrink.
    """
    allowed = rungs(coupling, found, allocation.round_to)
    fixed = fractions(coupling, found, allocation.ratio_of)
    start, top = np.zeros(len(found), dtype=np.int64), np.zeros(len(found), dtype=np.int64)
    for i, (cluster, rung) in enumerate(zip(found, allowed, strict=True)):
        start[i] = min(int(np.searchsorted(rung, gone[i])), len(rung) - 1)
        most = cluster.steps - 1 if allocation.by == "local" else int(MOST * cluster.steps + 1e-9)
        top[i] = max(int(start[i]), int(np.searchsorted(rung, most, side="right")) - 1)
        fraction = fixed[i]
        if fraction is not None:
            start[i] = top[i] = max(int(start[i]), nearest(rung, fraction * cluster.steps))
    return Stairs(tuple(allowed), start, top, tuple(f is not None for f in fixed))


def nearest(rung: Ints, step: float) -> int:
    """The position of the step that is nearest, of two the smaller."""
    return int((thresholds(rung) < step - 1e-9).sum())


def thresholds(rung: Ints) -> Floats:
    """Half way to the step after each but the last: beyond it the next one is nearer."""
    return (rung[:-1] + rung[1:]) / 2


@dataclass(frozen=True)
class Moves:
    """Single steps in the order in which they are taken; those of one cluster are in their own order.

    Attributes:
        cluster: Which cluster steps to its next rung.
        fraction: The fraction of its units beyond which the next rung is the nearer one.
    """

    cluster: Ints
    fraction: Floats

    def __len__(self) -> int:
        return len(self.cluster)

    def positions(self, way: Stairs, count: int) -> Ints:
        """Where every cluster stands after so many moves."""
        taken: Ints = np.bincount(self.cluster[:count], minlength=len(way.start))
        return way.start + taken


def moves(found: Sequence[Cluster], way: Stairs, scores: Scores, by: By) -> Moves:
    """All steps that a budget may take, in the order of the allocation.

    Locally in the order in which a growing common fraction takes them, of several at once the one that costs least for
    its cluster; else by the mean score of the units that go, never by less than that of the step before it.
    """
    parts: list[tuple[Ints, Floats, Floats]] = []
    blocks = _blocks(found, scores) if by == "block" else {}
    for i, (cluster, rung) in enumerate(zip(found, way.rungs, strict=True)):
        chosen = slice(int(way.start[i]), int(way.top[i]))
        fraction = thresholds(rung)[chosen] / cluster.steps
        costs = step_costs(cluster, scores, blocks)
        begin, end = rung[:-1][chosen], rung[1:][chosen]
        cost = np.add.reduceat(costs[: end[-1]], begin) / (end - begin) if len(end) else np.zeros(0)
        if by == "local":
            cost = cost / _scale(costs)
        parts.append((np.full(len(cost), i), fraction, np.maximum.accumulate(cost) if len(cost) else cost))
    if not parts:
        return Moves(np.zeros(0, dtype=np.int64), np.zeros(0))
    which, fractions_, costs_ = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((costs_, fractions_) if by == "local" else (fractions_, costs_))
    return Moves(which[order].astype(np.int64), fractions_[order])


def step_costs(cluster: Cluster, scores: Scores, divisors: dict[str, float] | None = None) -> Floats:
    """By step of a cluster the mean score of the units that go with it; 0 for units that have gone already.

    Args:
        cluster: The cluster.
        scores: By group; minus infinity for what has gone.
        divisors: By block what scores are divided by.
    """
    total, count = np.zeros(cluster.steps), 0
    for cell in cluster.cells:
        values = np.sort(scores[cell.group][cell.units].astype(np.float64))
        values[np.isneginf(values)] = 0.0
        total += values.reshape(cluster.steps, -1).sum(1) / (divisors or {}).get(block_of(cell.group), 1.0)
        count += len(values) // cluster.steps
    return total / count


def block_of(group: str) -> str:
    """The module that holds the layer a group is named after: ``layer1.0`` for ``layer1.0.conv1``; "" for the root."""
    return group.rpartition(".")[0]


def _blocks(found: Sequence[Cluster], scores: Scores) -> dict[str, float]:
    """By block the mean magnitude of the scores of its units; blocks without any are left as they are."""
    values: dict[str, list[NDArray[np.floating]]] = defaultdict(list)
    for cluster in found:
        for cell in cluster.cells:
            values[block_of(cell.group)].append(scores[cell.group][cell.units])
    return {block: _scale(np.concatenate(parts)) for block, parts in values.items()}


def _scale(values: NDArray[np.floating]) -> float:
    present = np.abs(values[np.isfinite(values)])
    return float(present.mean()) or 1.0 if len(present) else 1.0
