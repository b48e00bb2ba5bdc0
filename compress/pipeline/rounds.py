"""A budget approached in rounds: in each, units are scored anew on the network as it is then.

The network of a round is the original without the units that have gone, refitted where that is asked for, in its full
shape (:mod:`compress.graph.partly`). So a plan always speaks of the original; what was refitted on the way only serves
to score, and the final network is cut from the original weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.budget import everything, fit, size_of
from compress.graph import Cluster, partly_pruned, slice_graph
from compress.graph.partly import left_of
from compress.plan import Plan
from compress.plugin import Context, make_plan
from compress.progress import Progress

Removed = Mapping[str, NDArray[np.int64]]
Refit = Callable[[NDArray[np.bool_], fx.GraphModule], fx.GraphModule]


@dataclass(frozen=True)
class RoundContext(Context):
    """A partly pruned network as plugins see it: its groups hold the units that are left.

    Attributes:
        whole: The context of the original, with the budget of this round.
        gone: By group the units of the original that have gone.
    """

    whole: Context = field(kw_only=True)
    gone: Removed = field(kw_only=True)

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """What is left of the clusters of the original."""
        sizes = {group.name: group.size for group in self.whole.groups}
        return tuple(left_of(cluster, self.gone, sizes) for cluster in self.whole.clusters)

    @cached_property
    def reach(self) -> Mapping[str, float]:
        """By group the largest fraction of what is left that the budget of this round can take."""
        found = {}
        for own, cluster in zip(self.clusters, self.whole.clusters, strict=True):
            for name in cluster.groups:
                most = round(self.whole.reach[name] * cluster.steps) - (cluster.steps - own.steps)
                found[name] = max(0, most) / own.steps
        return found

    def plan_from_scores(self, scores: Mapping[str, Tensor]) -> Plan:
        """The plan of the original: what has gone goes first, then the lowest scores until the budget is met."""
        whole, full = self.whole, {}
        for name, values in self.checked(scores).items():
            full[name] = np.full(whole.coupling.group(name).size, -np.inf)
            full[name][np.delete(np.arange(len(full[name])), self.gone.get(name, []))] = values
        removed = fit(whole.coupling, whole.clusters, full, whole.budget, whole.allocation, whole.size)
        return Plan(removed, notes=self.notes)


def plan_in_rounds(method: Any, context: Context, steps: int, refit: Refit | None, progress: Progress) -> Plan:
    """The plan of a criterion that meets the budget in equal steps.

    Args:
        method: The criterion.
        context: The original.
        steps: How many rounds; with 1 this is :func:`compress.plugin.make_plan`.
        refit: From what stays (by label) and the sliced network a better one, which the next round scores.
        progress: Is told of every round.
    """
    dense = 1.0
    if context.budget.kind != "ratio":
        size = context.size or size_of(context.coupling, context.budget.kind)
        if context.size is None:
            context = context.changed(size=size)
        dense = size(everything(context.coupling))
    plan = Plan()
    for number in range(1, steps + 1):
        whole = context if number == steps else _share(context, number / steps, dense)
        if steps > 1:
            progress.step(f"Round {number} of {steps}")
        plan = make_plan(method, _scored(whole, plan.removed, refit))
    return plan


def _share(context: Context, share: float, dense: float) -> Context:
    """The context of a round that goes ``share`` of the way."""
    fractions = tuple((glob, share * fraction) for glob, fraction in context.allocation.ratio_of)
    allocation = replace(context.allocation, ratio_of=fractions)
    return replace(context, budget=context.budget.part(share, dense), allocation=allocation)


def _scored(whole: Context, gone: Removed, refit: Refit | None) -> Context:
    """The network on which the next round scores."""
    if not any(len(units) for units in gone.values()):
        return whole
    alive = whole.coupling.alive(gone)
    sliced = slice_graph(whole.coupling, alive)
    if refit is not None:
        sliced = refit(alive, sliced)
    with torch.no_grad():
        coupling = partly_pruned(whole.coupling, gone, sliced)
    parts = {each.name: getattr(whole, each.name) for each in fields(whole)}
    return RoundContext(**(parts | {"coupling": coupling}), whole=whole, gone=gone)
