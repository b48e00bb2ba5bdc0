"""From scores and a budget to the units that go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compress.budget.align import Ints, rungs
from compress.budget.allocation import MOST, Allocation, Moves, Stairs, moves, nearest, stairs
from compress.budget.kinds import SLACK, Budget, Removed, Scores, Size, everything, size_of
from compress.errors import ModelError
from compress.graph import Cluster, Coupling, empty_pieces, lowest


def at_steps(
    coupling: Coupling,
    found: Sequence[Cluster],
    scores: Scores,
    steps: Sequence[int],
    allowed: Sequence[Ints] | None = None,
) -> Removed:
    """Units that go when cluster ``i`` loses ``steps[i]`` of its steps; no piece of a split is left empty.

    A cluster that would empty one goes back to the last of its ``allowed`` steps that does not.
    """
    steps = list(steps)
    while True:
        removed: Removed = {}
        for cluster, step in zip(found, steps, strict=True):
            removed.update(lowest(cluster, scores, step))
        bad = empty_pieces(coupling, coupling.alive(removed))
        held = [i for i, c in enumerate(found) if steps[i] and bad & set(c.groups)]
        if not held:
            return removed
        for i in held:
            below = np.arange(steps[i]) if allowed is None else allowed[i][allowed[i] < steps[i]]
            steps[i] = int(below[-1])


def at_ratio(
    coupling: Coupling, found: Sequence[Cluster], scores: Scores, ratio: float, round_to: int = 1
) -> Removed:
    """The same fraction of every cluster, at the nearest step that is allowed; something always stays."""
    allowed = rungs(coupling, found, round_to)
    steps = [int(r[nearest(r, ratio * c.steps)]) for c, r in zip(found, allowed, strict=True)]
    return at_steps(coupling, found, scores, steps, allowed)


@dataclass(frozen=True)
class _Search:
    """What a budget is looked for in.

    Attributes:
        way: Where clusters may stand.
        moves: Single steps in the order of the allocation.
        measure: The size that is left when these units go.
    """

    coupling: Coupling
    found: Sequence[Cluster]
    scores: Scores
    way: Stairs
    moves: Moves
    measure: Callable[[Removed], float]

    def removed(self, positions: Ints) -> Removed:
        return at_steps(self.coupling, self.found, self.scores, self.way.steps(positions), self.way.rungs)

    def size(self, positions: Ints) -> float:
        return self.measure(self.removed(positions))

    def after(self, count: int) -> Ints:
        return self.moves.positions(self.way, count)

    def within(self, limit: float) -> Ints | float:
        """The positions after the fewest moves with which the limit is met; the smallest size where it cannot be."""
        if self.size(self.after(0)) <= limit:
            return self.after(0)
        over, met = 0, len(self.moves)
        smallest = self.size(self.after(met))
        if smallest > limit:
            return smallest
        while met - over > 1:
            middle = (over + met) // 2
            over, met = (middle, met) if self.size(self.after(middle)) > limit else (over, middle)
        return self.after(met)

    def given_back(self, positions: Ints, limit: float) -> Ints:
        """The same with single steps taken back, the last taken first, until nothing more fits or 2 % are left."""
        size = self.size(positions)
        latest = list(dict.fromkeys(self.moves.cluster[::-1].tolist()))
        again = True
        while again:
            again = False
            for i in latest:
                if size >= (1 - SLACK) * limit:
                    return positions
                fewer = positions - (np.arange(len(positions)) == i)
                if fewer[i] >= self.way.start[i] and (larger := self.size(fewer)) <= limit:
                    positions, size, again = fewer, larger, True
        return positions


def fit(
    coupling: Coupling,
    found: Sequence[Cluster],
    scores: Scores,
    budget: Budget,
    allocation: Allocation | None = None,
    size: Size | None = None,
) -> Removed:
    """The units that go so that the network just fits the budget.

    Clusters take single steps in the order of the allocation, until the budget is met; what the last one was too much
    is given back elsewhere. So what is left over is less than 2 % of the budget, or less than any single step.

    Args:
        coupling: The analysed network.
        found: What may shrink.
        scores: By group a number for every unit, higher means keep; minus infinity for what has gone already.
        budget: How small the result is to be; a local ratio is that of every cluster, at its nearest allowed step.
        allocation: How it is spread.
        size: What the budget counts, by what stays; None for the size that belongs to its kind.

    Raises:
        InputError: A glob of the allocation matches nothing.
        ModelError: Even the smallest allowed network is over the budget; the message names its size.
    """
    allocation = allocation or Allocation()
    way = stairs(coupling, found, allocation, [_gone(cluster, scores) for cluster in found])
    order = moves(found, way, scores, allocation.by)
    measure, limit = _goal(coupling, found, way, budget, size)
    search = _Search(coupling, found, scores, way, order, measure)
    if budget.kind == "ratio" and allocation.by == "local":
        return search.removed(search.after(int((order.fraction < budget.value - 1e-9).sum())))
    positions = search.within(limit)
    if isinstance(positions, float):
        raise _unreachable(budget, allocation, limit, positions)
    return search.removed(search.given_back(positions, limit))


def _goal(
    coupling: Coupling, found: Sequence[Cluster], way: Stairs, budget: Budget, size: Size | None
) -> tuple[Callable[[Removed], float], float]:
    """What is measured, and how much of it may be left."""
    if budget.kind == "ratio":  # of the units that the budget decides on
        free = {g for cluster, fixed in zip(found, way.fixed, strict=True) if not fixed for g in cluster.groups}
        units = sum(len(cell.units) for cluster in found for cell in cluster.cells if cell.group in free)
        limit = (1 - budget.value) * units + 1e-9
        return lambda removed: float(units - sum(len(u) for g, u in removed.items() if g in free)), limit
    count = size or size_of(coupling, budget.kind)
    return lambda removed: count(coupling.alive(removed)), budget.limit(count(everything(coupling)))


def _unreachable(budget: Budget, allocation: Allocation, limit: float, smallest: float) -> ModelError:
    asked, unit = f"--{budget.kind} {_number(limit)}", ""
    if budget.kind == "ratio":
        asked, unit = f"--ratio {budget.value:g}, so {_number(limit)} units left,", " units"
    ways = ["choose a larger budget", "allow more layers to shrink"]
    ways += ["round to less"] * (allocation.round_to > 1) + ["fix fewer layers"] * bool(allocation.ratio_of)
    if allocation.by != "local":
        ways.append(f"--allocation local, as {allocation.by} leaves each group {1 - MOST:.0%} of its units")
    return ModelError(
        f"{asked} cannot be met: the smallest allowed widths still need {_number(smallest)}{unit}", ", or ".join(ways)
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _gone(cluster: Cluster, scores: Scores) -> int:
    """The steps that a cluster has lost already, as the scores say."""
    shares = (np.isneginf(scores[cell.group][cell.units]).mean() for cell in cluster.cells)
    return int(np.ceil(max(shares) * cluster.steps - 1e-9))


def reach(
    coupling: Coupling, found: Sequence[Cluster], budget: Budget, allocation: Allocation
) -> list[int]:
    """By cluster the most steps that a budget can take from it, whatever the scores.

    Raises:
        InputError: A glob of the allocation matches nothing.
    """
    way = stairs(coupling, found, allocation, [0] * len(found))
    if budget.kind == "ratio" and allocation.by == "local":
        near = [nearest(r, budget.value * c.steps) for c, r in zip(found, way.rungs, strict=True)]
        return way.steps(np.clip(near, way.start, way.top))
    return way.steps(way.top)
