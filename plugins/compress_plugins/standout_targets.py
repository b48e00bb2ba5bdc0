"""How many units standout removes at each pruning, and which."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compress.plugin import Allocation, Budget, Context, InputError, ModelError

Ranking = Literal["layer", "together"]
Removed = dict[str, list[int]]
_HALF = Budget("ratio", 0.5)


@dataclass(frozen=True)
class Retention:
    """Of the units of a group: mean retention and mean |activation|, (units,) each."""

    mean: Tensor
    size: Tensor


def ratio(gamma: float, event: int) -> float:
    """The share that has gone after so many prunings, each of which takes ``gamma`` of the rest."""
    return float(1 - (1 - gamma) ** event)


def goal(size: int, most: int, gamma: float, event: int) -> int:
    """How many of ``size`` have gone after so many prunings, at most ``most``; halves are rounded to even."""
    return min(most, round(ratio(gamma, event) * size))


def events(size: int, most: int, gamma: float) -> int:
    """Prunings until ``most`` of ``size`` have gone."""
    event = 0
    while goal(size, most, gamma, event) < most:
        event += 1
    return event


class Targets:
    """What is to be left of the layers with gates.

    Args:
        context: With these layers alone.
        nodes: Units that every layer keeps; None where a budget says it, or half of them where there is none.
        gamma: Share of the rest that goes at each pruning.
        ranking: Whether layers are ranked each for itself, or together.

    Attributes:
        prunings: How many it takes.
        sizes: By group its units.

    Raises:
        InputError: ``nodes`` and a budget are given, or no layer is wider than ``nodes``.
        ModelError: The budget cannot be met by these layers alone.
    """

    def __init__(self, context: Context, nodes: int | None, gamma: float, ranking: Ranking) -> None:
        self.gamma, self.ranking = gamma, ranking
        by: Literal["local", "global"] = "global" if ranking == "together" else "local"
        budget = context.budget if context.has_budget else _HALF
        self.context = context.changed(budget=budget, allocation=replace(context.allocation, by=by))
        self.sizes = {group.name: group.size for group in context.groups}
        if nodes is None:
            first = {name: torch.arange(size, dtype=torch.float64) / size for name, size in self.sizes.items()}
            self.wanted = self._counts(self._planned(self.context, first))
        else:
            self.wanted = self._all_but(nodes, context.has_budget)
        if not any(self.wanted.values()):
            raise ModelError("no unit of the layers with gates may go", "another budget, or a smaller --round-to")
        self.size, self.most = sum(self.sizes.values()), sum(self.wanted.values())
        each = (events(size, self.wanted[name], gamma) for name, size in self.sizes.items())
        self.prunings = events(self.size, self.most, gamma) if ranking == "together" else max(each)

    def chosen(self, event: int, found: Mapping[str, Retention], gone: Removed) -> tuple[Removed, bool]:
        """Units that have gone after a pruning, those of the ones before among them; whether that is all.

        Args:
            event: The pruning, from 1.
            found: By group what its units came to.
            gone: By group the units that went before.
        """
        scores = {name: self._score(found[name], gone.get(name, [])) for name in self.sizes}
        if self.ranking == "layer":
            goals = {n: goal(size, self.wanted[n], self.gamma, event) for n, size in self.sizes.items()}
            return self._planned(self._fixed(goals), scores), goals == self.wanted
        everything = self._planned(self.context, scores)
        most = sum(map(len, everything.values()))
        count = goal(self.size, most, self.gamma, event)
        if event >= self.prunings or count >= most:
            return everything, True
        if not count:
            return gone, False
        return self._planned(self.context.changed(budget=Budget("ratio", count / self.size)), scores), False

    def _score(self, found: Retention, gone: list[int]) -> Tensor:
        """The order of retention, then of |activation|, then of the index; together, retention over its mean first."""
        mean, size = (each.double().cpu().numpy().copy() for each in (found.mean, found.size))
        mean[gone] = -1.0
        order = np.empty(len(mean))
        order[np.lexsort((size, mean))] = np.arange(len(mean))
        if self.ranking == "layer":
            return torch.from_numpy(order)
        alive = mean[mean >= 0].mean()
        return torch.from_numpy(mean / alive + 1e-9 * order / len(mean))

    def _fixed(self, goals: Mapping[str, int]) -> Context:
        """The context in which each group loses so many units, as near as rounding allows."""
        shares = tuple((glob.escape(name), n / self.sizes[name]) for name, n in goals.items())
        allocation = Allocation("local", shares, self.context.allocation.round_to)
        return self.context.changed(budget=_HALF, allocation=allocation)

    def _all_but(self, nodes: int, has_budget: bool) -> dict[str, int]:
        if has_budget:
            raise InputError("--nodes and a budget both say how small the layers get", "leave one of them out")
        if self.ranking == "together":
            raise InputError(
                "--nodes says how many units each layer keeps, and --ranking together leaves that open",
                "a budget such as --params 0.5, or --ranking layer",
            )
        if all(size <= nodes for size in self.sizes.values()):
            widths = ", ".join(f"{name} has {size}" for name, size in self.sizes.items())
            raise InputError(f"--nodes {nodes}: no layer with a gate has more units: {widths}", "fewer --nodes")
        goals = {name: max(0, size - nodes) for name, size in self.sizes.items()}
        first = {name: torch.arange(size, dtype=torch.float64) for name, size in self.sizes.items()}
        return self._counts(self._planned(self._fixed(goals), first))

    def _counts(self, removed: Removed) -> dict[str, int]:
        return {name: len(removed.get(name, ())) for name in self.sizes}

    @staticmethod
    def _planned(context: Context, scores: Mapping[str, Tensor]) -> Removed:
        plan = context.plan_from_scores(scores)
        return {name: sorted(map(int, units)) for name, units in plan.removed.items() if len(units)}
