"""What annealed pruning masks at a position of its schedule: the smallest weights, or the units that score lowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from compress.plugin import Budget, Context, Figure, ModelError, Plan, Series, annealed, share_of_zeros
from compress_plugins.ranking import Ranking

Masks = Mapping[str, Tensor]


class Weights:
    """Single weights, by magnitude.

    Args:
        context: The network as it came.
        keep: Fraction of each layer's weights that stays. A budget takes its place: where zeros stay in the result, it
            says how many there are; else each layer keeps as many weights as it has when whole units are removed until
            the budget is met.
        mu: Of the schedule.
        stacked: Whether the weights of all layers are ranked together; then no layer loses its largest weight.
        first: Whether layers that read the network's input are masked, too.

    Raises:
        ModelError: There is no layer to mask, or zeros cannot meet the budget.
    """

    def __init__(self, context: Context, keep: float, mu: float, *, stacked: bool = False, first: bool = False) -> None:
        self.mu, self.stacked = mu, stacked
        left = frozenset() if first else context.first_layers
        self.sizes = {name: weight.numel() for name, weight in context.layers().items() if name not in left}
        if not self.sizes:
            raise ModelError(
                "no layer to mask weights of",
                "--first-layer masks those that read the input, --unit-method whole units",
            )
        if context.has_budget and context.granularity == "weight":
            weights = {name: context.weight(name) for name in self.sizes}
            keep = 1 - share_of_zeros(context.budget, context.module, weights)
        whole = context.has_budget and context.granularity == "unit"
        shares = _shares(context, self.sizes) if whole else dict.fromkeys(self.sizes, keep)
        self.wanted = {name: max(1, int(shares[name] * size)) for name, size in self.sizes.items()}
        self.rankings = {name: Ranking() for name in ("", *self.sizes)}
        self.all_wanted = int(sum(shares[name] * size for name, size in self.sizes.items()))

    def left(self, position: int, total: int) -> tuple[int, ...]:
        """How many weights stay at a position: of each layer, or of all together."""
        if self.stacked:
            return (annealed(position, total, sum(self.sizes.values()), self.all_wanted, self.mu),)
        return tuple(annealed(position, total, size, self.wanted[n], self.mu) for n, size in self.sizes.items())

    def narrowed(self, network: fx.GraphModule, position: int, total: int, masks: Masks) -> dict[str, Tensor]:
        """The masks of a position, inside those that are there."""
        tensors = dict(network.named_parameters(remove_duplicate=False))
        scores = []
        for name in self.sizes:
            size = tensors[name].detach().cpu().abs().flatten()
            scores.append(size if name not in masks else size.masked_fill(~masks[name].cpu().flatten(), -1.0))
        if self.stacked:
            for each in scores:
                each[each.argmax()] = torch.inf
            joined = self.rankings[""].largest(torch.cat(scores), self.left(position, total)[0])
            kept = list(joined.split([len(each) for each in scores]))
        else:
            counts = zip(self.sizes, scores, self.left(position, total), strict=True)
            kept = [self.rankings[name].largest(each, n) for name, each, n in counts]
        return {name: mask.reshape(tensors[name].shape) for name, mask in zip(self.sizes, kept, strict=True)}

    def numbers(self, masks: Masks) -> dict[str, float]:
        """For the history."""
        left = sum(int(masks[name].sum()) if name in masks else size for name, size in self.sizes.items())
        return {"kept weights": left}

    def plan(self, context: Context, masks: Masks) -> Plan:
        """From what is left: each layer keeps its share of units, or the network its budget."""
        masks = {name: mask.cpu() for name, mask in masks.items()}
        notes = {n: {"weights": m.numel(), "kept_weights": int(m.sum())} for n, m in masks.items()}
        if not context.has_budget or context.granularity == "weight":
            return context.plan_from_masks(masks, notes)
        # Masked weights are zero, so that this is the mass that survives
        return replace(_by_mass(context), notes=notes)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        pass


class Units:
    """Whole units, by the scores of a criterion on the weights of the moment.

    Args:
        context: The network as it came.
        criterion: Name of the criterion.
        keep: Fraction of each group's units that stays, where the user gave no budget.
        mu: Of the schedule.

    Raises:
        InputError: There is no such criterion.
    """

    def __init__(self, context: Context, criterion: str, keep: float, mu: float) -> None:
        self.context, self.mu = context, mu
        self.criterion = context.criterion(criterion)
        self.budget = context.budget if context.has_budget else Budget("ratio", 1 - keep)
        self.removed: dict[str, Tensor] = {}
        self.size = sum(group.size for group in context.groups)
        self.wanted = self.size - self._count(self._chosen(context, self.budget))

    def left(self, position: int, total: int) -> tuple[int, ...]:
        """How many units of all groups stay at a position."""
        return (annealed(position, total, self.size, self.wanted, self.mu),)

    def narrowed(self, network: fx.GraphModule, position: int, total: int, masks: Masks) -> dict[str, Tensor]:
        """The masks of a position. Groups lose the same fraction on the way, and in the end what the budget says."""
        (left,) = self.left(position, total)
        if left == self.size:
            return {}
        budget = self.budget if left == self.wanted else Budget("ratio", 1 - left / self.size)
        self.removed = self._chosen(self.context.on(network), budget)
        return self.context.unit_masks({name: units.tolist() for name, units in self.removed.items()})

    def _chosen(self, context: Context, budget: Budget) -> dict[str, Tensor]:
        """The units that score lowest; those that are masked already come first."""
        context = replace(context, budget=budget)
        scores = {}
        for group in context.groups:
            values = self.criterion.score(group, context).detach().double().cpu().clone()
            gone = self.removed.get(group.name)
            if gone is not None:
                values[gone] = values.min() - 1
            scores[group.name] = values
        plan = context.plan_from_scores(scores)
        return {name: torch.as_tensor(units, dtype=torch.int64) for name, units in plan.removed.items() if len(units)}

    @staticmethod
    def _count(removed: Mapping[str, Tensor]) -> int:
        return sum(len(units) for units in removed.values())

    def numbers(self, masks: Masks) -> dict[str, float]:
        """For the history."""
        return {"kept units": self.size - self._count(self.removed)}

    def plan(self, context: Context, masks: Masks) -> Plan:
        """The units that are masked; as masks where single weights are asked for."""
        if context.granularity == "weight":
            return Plan(masks={name: mask.cpu() for name, mask in masks.items()})
        return Plan({name: units.numpy() for name, units in self.removed.items()})

    def state(self) -> dict[str, Any]:
        return {"removed": self.removed}

    def load(self, state: Mapping[str, Any]) -> None:
        self.removed = dict(state["removed"])


def _by_mass(context: Context) -> Plan:
    """The units that hold the least, summed over all magnitudes, go until the budget is met."""
    return context.plan_from_scores({g.name: torch.stack(context.unit_mass(g, 1)).sum(0) for g in context.groups})


def _shares(context: Context, names: Mapping[str, int]) -> dict[str, float]:
    """The fraction of each layer's weights that stays when whole units are removed until the budget is met."""
    coupling = context.coupling
    kept = coupling.kept(coupling.alive(_by_mass(context).removed))
    shares = dict.fromkeys(names, 1.0)
    for name in shares:
        for dim, index in kept.get(name, {}).items():
            shares[name] *= index.shape[-1] / context.weight(name).shape[dim]
    return shares


def nonzero_figure(counts: Sequence[Sequence[int]]) -> Figure:
    """Parameters that are not zero by epoch; ``counts`` holds pairs of both."""
    epochs, left = ([float(each[i]) for each in counts] for i in (0, 1))
    series = Series("", epochs, left)
    return Figure("nonzero-parameters", "Parameters that are not zero", "epoch", "parameters", (series,))
