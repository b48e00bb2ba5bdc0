"""Units from the shares of their weights that a method leaves to every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compress.budget.align import rungs
from compress.budget.allocation import nearest, step_costs
from compress.budget.kinds import Removed, Scores
from compress.budget.steps import at_steps
from compress.graph import Cluster, Coupling, attribute


def fit_layers(
    coupling: Coupling, found: Sequence[Cluster], scores: Scores, shares: Mapping[str, float], round_to: int = 1
) -> Removed:
    """Shrink until every layer's weight has at most its share of values left.

    Args:
        coupling: The analysed network.
        found: Clusters that may shrink.
        scores: Units with low scores go first.
        shares: By weight name the fraction of its values that may stay.
        round_to: Widths that are smaller than before are multiples of it: the nearest, which may be above the share.

    Each time the layer that is most over its share loses one step, in that of its dims whose next units cost least.
    """
    touching = _touching(coupling, found, shares)
    steps = [0] * len(found)
    costs = [_relative(step_costs(c, scores)) for c in found]
    while True:
        worst, excess = "", 1.0 + 1e-9
        for layer, reach in touching.items():
            left = 1.0
            for i in reach:
                left *= 1 - steps[i] / found[i].steps
            over = left / max(shares[layer], 1e-12)
            if over > excess and any(steps[i] < found[i].steps - 1 for i in reach):
                worst, excess = layer, over
        if not worst:
            allowed = rungs(coupling, found, round_to)
            rounded = [int(r[nearest(r, step)]) for r, step in zip(allowed, steps, strict=True)]
            return at_steps(coupling, found, scores, rounded, allowed)
        open_ = [i for i in touching[worst] if steps[i] < found[i].steps - 1]
        steps[min(open_, key=lambda i: costs[i][steps[i]])] += 1


def _touching(coupling: Coupling, found: Sequence[Cluster], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """For every weight the clusters that shorten one of its dims."""
    result: dict[str, list[int]] = {name: [] for name in shares}
    for i, cluster in enumerate(found):
        for name in cluster.groups:
            for member in coupling.group(name).members:
                tensor = attribute(coupling.program.module, member.tensor)
                whole = member.index.size == member.blocks * tensor.shape[member.dim]
                if member.tensor in result and whole and i not in result[member.tensor]:
                    result[member.tensor].append(i)
    return {name: reach for name, reach in result.items() if reach}


def _relative(costs: NDArray[np.floating]) -> NDArray[np.floating]:
    """To the mean of the cluster."""
    return costs / max(float(costs.mean()), 1e-30)
