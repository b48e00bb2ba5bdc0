"""Units as components with a weight each, plain or behind learned thresholds."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Figure, Group, ModelError, Plan, Series
from compress_plugins.thresholds import signed, start_beta

Values = Mapping[str, Tensor]
Removed = dict[str, Tensor]  # by group the positions of its units, int64
Members = Mapping[str, Sequence[tuple[str, Tensor]]]


class UnitScales:
    """Units whose scales say what they are worth; a unit all of whose scales are zero puts out nothing.

    Args:
        context: The network as it came.
        members: By group whose units can be switched off, its sites: tensors with a scale for every index of dim 0,
            by name, and which indices its units hold, (units, k).

    Attributes:
        removable: By site the indices that belong to a unit that may go.
        size: Units in all.
        only: Globs of the groups that have scales, where a share of the units is to go and others have none: a share of
            all would take from these alone.
    """

    noun = "channels"
    same_operations = True

    def __init__(self, context: Context, members: Members) -> None:
        share = context.has_budget and context.budget.kind == "ratio"
        some = share and any(group.name not in members for group in context.groups)
        self.only = tuple(map(glob.escape, members)) if some else ()
        context = context.changed(only=self.only) if some else context
        self.context, self.members = context, members
        self._usual: float | None = None
        self._asked: tuple[Removed | None, dict[str, Tensor]] = (None, {})
        self.removable = self.indices({name: torch.arange(len(sites[0][1])) for name, sites in members.items()})
        self.size = sum(len(sites[0][1]) for sites in members.values())
        self._ranking = replace(context, allocation=replace(context.allocation, by="global"))

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        """By site its scales, (indices,), with a gradient."""
        raise NotImplementedError

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]:
        """The same before a pass, in which the network does not make them again."""
        return self.values(network)

    def prepared_norm(self, network: fx.GraphModule, only: Removed | None) -> Tensor | None:
        """The l1 norm of what is pressed on, prepared with the values; None where that is not made at once."""
        return None

    def withdraw(self, network: fx.GraphModule, share: float) -> None:
        """Leave only a share of what the units put out beside what the scales govern."""

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        """The trained network, in the form in which it came."""
        return network

    def pressed(self, values: Values, only: Removed | None = None) -> list[Tensor]:
        """The scales of units that may go, or of some of them, one tensor for each site."""
        chosen = self.indices(only).items()
        return [values[name].index_select(0, index.to(values[name].device)) for name, index in chosen]

    def mean(self, values: Values, units: Removed, pressed: Sequence[Tensor] | None = None) -> float:
        """Of some units, the mean of the sum of |a| over their scales; 0 where none of them has any.

        Args:
            values: By site its scales.
            units: Which.
            pressed: What `pressed` gives for these, if anyone has asked already.
        """
        count = sum(len(each) for group, each in units.items() if group in self.members)
        if not count:
            return 0.0
        found = torch.cat(list(self.pressed(values, units) if pressed is None else pressed)).detach()
        return float(found.abs().sum(dtype=torch.float64)) / count

    def indices(self, units: Removed | None) -> dict[str, Tensor]:
        """By site the indices that these units hold; None for all that may go."""
        if units is None:
            return self.removable
        if units is self._asked[0]:  # in every step of an epoch
            return self._asked[1]
        found: dict[str, list[Tensor]] = {}
        for group, each in units.items():
            for name, index in self.members.get(group, ()):
                found.setdefault(name, []).append(index[each].flatten())
        self._asked = (units, {name: torch.cat(parts).unique() for name, parts in found.items()})
        return self._asked[1]

    def scores(self, values: Values) -> dict[str, Tensor]:
        """By group the sum of |a| over the scales of each unit, (units,), float64."""
        sizes = {name: values[name].detach().abs().double().cpu() for name in self.removable}
        return {
            group: torch.stack([sizes[name][index].sum(1) for name, index in members]).sum(0)
            for group, members in self.members.items()
        }

    def worth(self, values: Values) -> dict[str, Tensor]:
        """By group what a budget ranks its units by, (units,), float64."""
        return self.scores(values)

    def zeros(self, values: Values) -> Removed:
        """The units whose scales are all exactly zero."""
        return {name: (score == 0).nonzero().flatten() for name, score in self.scores(values).items()}

    def chosen(self, values: Values) -> Removed:
        """The units of all groups that are worth least, until the budget is met.

        Units without scales compete by their sizes, as if they had the scale that was usual at first.

        Raises:
            ModelError: The budget cannot be met.
        """
        scores = self.worth(values)
        if self._usual is None:  # which is asked before the training
            self._usual = float(torch.cat(list(scores.values())).mean())
        for group in self.context.groups:
            if group.name not in scores:
                scores[group.name] = self._usual * sizes(self.context, group)
        try:
            plan = self._ranking.plan_from_scores(scores)
        except ModelError as error:
            hint = (
                "a larger --keep or budget: units of all layers compete, and a layer keeps a tenth of its own at least"
            )
            raise ModelError(str(error), hint) from error
        return {name: torch.as_tensor(units, dtype=torch.int64) for name, units in plan.removed.items() if len(units)}

    def masks(self, removed: Removed) -> dict[str, Tensor]:
        """By parameter, of its shape: True where a value stays when these units go."""
        return self.context.unit_masks({name: units.tolist() for name, units in removed.items()})

    def plan(self, context: Context, closed: Removed) -> Plan:
        """Removes the units that were closed, and those that are dead.

        Args:
            context: Of the folded network.
            closed: What was switched off for good while the network trained.
        """
        dead = context.remove_dead()
        if dead.carried and all(len(dead.removed.get(n, ())) >= len(units) for n, units in closed.items()):
            # Constants go into the biases behind them, which only masks that mask nothing ask for
            return Plan(masks={name: weight != 0 for name, weight in context.layers().items()})
        found = {name: units.numpy() for name, units in closed.items()}
        exact = context.allocation.round_to == 1 and not dead.carried
        for name, units in dead.removed.items() if exact else ():
            if len(units) >= len(found.get(name, ())):
                found[name] = units
        return Plan({name: units for name, units in found.items() if len(units)})


def sizes(context: Context, group: Group) -> Tensor:
    """Of each unit, (units,), float64: its place by the squares of its weights in all tensors, evenly from 0 to 2.

    Places and not sizes, as these spread further in some layers than in others, which would lose most.
    """
    masses = [mass.double().cpu() for mass in context.unit_mass(group, 2)]
    shares = [mass / mass.mean() for mass in masses if bool(mass.any())]
    mean = torch.stack(shares).mean(0) if shares else torch.zeros(group.size, dtype=torch.float64)
    return (2 * mean.argsort(stable=True).argsort() + 1).double() / group.size


class Thresholded(nn.Module):
    """a from alpha: equation 12, with beta where the paper starts it.

    Args:
        n: Components.
        rectify: Take the rectified gradient.
        like: Has the type and the device of beta.
    """

    def __init__(self, n: int, rectify: bool, like: Tensor) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(start_beta(n), dtype=like.dtype, device=like.device))
        self.rectify = rectify
        self.prepared: Tensor | None = None

    def prepare(self, alpha: Tensor) -> Tensor:
        """a, (n,), which the next pass takes instead of making it again: a step needs it for its norm, too."""
        self.prepared = signed(alpha, self.beta, rectify=self.rectify)
        return self.prepared

    def forward(self, alpha: Tensor) -> Tensor:
        found, self.prepared = self.prepared, None
        return signed(alpha, self.beta, rectify=self.rectify) if found is None else found


def scale_figure(values: Values, noun: str) -> Figure:
    """|a| by rank, one line for each site."""
    series = []
    for name, each in values.items():
        sizes = each.detach().abs().flatten().sort(descending=True).values.tolist()
        ranks = [100 * (i + 1) / len(sizes) for i in range(len(sizes))]
        series.append(Series(name.removesuffix(".weight") if len(values) <= 10 else "", ranks, sizes))
    return Figure("scales", f"Scales of {noun}, sorted", f"{noun} of a layer, %", "|a|", tuple(series))
