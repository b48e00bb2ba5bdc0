"""From scores and a budget to the units that go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compress.budget.allocation import MOST, Allocation, Stairs, moves, nearest, stairs
from compress.budget.kinds import Budget, Outcome, Removed, Scores, Size, everything, size_of
from compress.budget.search import Search
from compress.errors import ModelError
from compress.graph import Cluster, Coupling


def fit(
    coupling: Coupling,
    found: Sequence[Cluster],
    scores: Scores,
    budget: Budget,
    allocation: Allocation | None = None,
    size: Size | None = None,
) -> Removed:
    """The units that go so that the network just fits the budget.

    Clusters take single steps in the order of the allocation, until the budget is met. Where the last one was too
    much, so that more than 2 % of the budget are left over, single steps are given back or exchanged.

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
    search, limit = _prepared(coupling, found, scores, budget, allocation, size)
    if budget.kind == "ratio" and allocation.by == "local":
        near = int((search.moves.fraction < budget.value - 1e-9).sum())
        return search.removed(search.after(near))
    positions = search.within(limit)
    if positions is None:
        raise _unreachable(budget, allocation, limit, search.size(search.way.top))
    return search.removed(search.filled(positions, limit))


def check(
    coupling: Coupling,
    found: Sequence[Cluster],
    budget: Budget,
    allocation: Allocation | None = None,
    size: Size | None = None,
) -> None:
    """See before units are scored that :func:`fit` will find something, whatever their scores.

    Raises:
        InputError: A glob of the allocation matches nothing.
        ModelError: Even the smallest allowed network is over the budget; the message names its size.
    """
    allocation = allocation or Allocation()
    scores = {name: np.zeros(coupling.group(name).size) for cluster in found for name in cluster.groups}
    search, limit = _prepared(coupling, found, scores, budget, allocation, size)
    local = budget.kind == "ratio" and allocation.by == "local"
    if not local and (smallest := search.size(search.way.top)) > limit:
        raise _unreachable(budget, allocation, limit, smallest)


def _prepared(
    coupling: Coupling,
    found: Sequence[Cluster],
    scores: Scores,
    budget: Budget,
    allocation: Allocation,
    size: Size | None,
) -> tuple[Search, float]:
    """Where a budget is looked for, and the limit that it sets."""
    way = stairs(coupling, found, allocation, [_gone(cluster, scores) for cluster in found])
    order = moves(found, way, scores, allocation.by)
    measure, limit = _goal(coupling, found, way, budget, size)
    return Search(coupling, found, scores, way, order, measure), limit


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
    if budget.kind == "latency":
        limit, smallest, unit = limit / 1000, smallest / 1000, " ms"
        asked = f"--latency {_number(limit)}ms"
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


def reach(coupling: Coupling, found: Sequence[Cluster], budget: Budget, allocation: Allocation) -> list[int]:
    """By cluster the most steps that a budget can take from it, whatever the scores.

    Raises:
        InputError: A glob of the allocation matches nothing.
    """
    way = stairs(coupling, found, allocation, [0] * len(found))
    if budget.kind == "ratio" and allocation.by == "local":
        near = [nearest(r, budget.value * c.steps) for c, r in zip(found, way.rungs, strict=True)]
        return way.steps(np.clip(near, way.start, way.top))
    return way.steps(way.top)


def outcome(
    coupling: Coupling,
    found: Sequence[Cluster],
    removed: Removed,
    budget: Budget,
    allocation: Allocation | None = None,
    size: Size | None = None,
) -> Outcome:
    """What a budget came to when these units went; the arguments are those of :func:`fit`."""
    way = stairs(coupling, found, allocation or Allocation(), [0] * len(found))
    measure, limit = _goal(coupling, found, way, budget, size)
    if budget.kind != "ratio":
        return Outcome(budget.kind, limit, measure(removed))
    units = measure({})
    # Where every fraction was given, nothing was left for the ratio to decide
    return Outcome("ratio", budget.value, (units - measure(removed)) / units if units else budget.value)
