"""How many inputs of layers go: as the user's share, threshold, budget or least accuracy says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, fx

from compress.plugin import Context, InputError, Loop, ModelError, everything, size_of
from compress_plugins.amounts import check_one_size
from compress_plugins.dsc_columns import Order, drop, fewest, most, order, scores
from compress_plugins.dsc_fold import folded_network
from compress_plugins.dsc_layers import Gating, short_circuits

if TYPE_CHECKING:
    from compress_plugins.dsc import DSC


_KEEP = 0.5  # of the inputs, where nobody says how much
_TRIES = 20  # inputs that may be given back


class Goal:
    """When enough has gone.

    Args:
        context: The network as it came, with the budget.
        method: The options.

    Raises:
        InputError: The budget cannot be met by choosing inputs, or there are two goals.
    """

    def __init__(self, context: Context, method: DSC) -> None:
        self.context, self.method = context, method
        self.keep = _KEEP if method.keep is None else method.keep
        check_one_size(context, method.keep)
        self.floor = method.min_accuracy is not None or method.max_drop is not None
        budget = context.budget
        if self.floor and context.has_budget:
            flag = "--min-accuracy" if method.min_accuracy is not None else "--max-drop"
            raise InputError(f"{flag} finds by itself how much may go", f"leave out --{budget.kind}")
        if context.allocation.round_to > 1:
            raise InputError("--round-to: dsc removes inputs of layers, whose units go with them", "leave it out")
        if context.has_budget and budget.kind == "bytes":
            raise InputError("--bytes: dsc chooses while the network trains, before there is a file", "--params")
        if context.has_budget and budget.kind in ("params", "macs"):
            self.limit = budget.limit(size_of(context.coupling, budget.kind)(everything(context.coupling)))

    @property
    def kind(self) -> str:
        """What decides: "floor", "ratio", "params", "macs", "threshold" or "keep"."""
        if self.floor:
            return "floor"
        if self.context.has_budget:
            return self.context.budget.kind
        return "keep" if self.method.gates in ("effective", "contribution") else "threshold"

    @property
    def ratio(self) -> float:
        """The share of inputs that goes, where that is what was asked for."""
        return self.context.budget.value if self.kind == "ratio" else 1 - self.keep

    def check(self, network: fx.GraphModule) -> None:
        """See before the training that the goal can be met, whatever goes first.

        Raises:
            ModelError: It leaves less than one input of a layer, or one feature of what a layer gives.
        """
        steps = self._order(network, "effective")
        least = steps.total - len(steps.steps)
        if self.kind in ("ratio", "keep"):
            asked = f"--ratio {self.ratio:g}" if self.kind == "ratio" else f"--keep {self.keep:g}"
            left = (1 - self.ratio) * steps.total
            if left < least - 1e-9:
                raise ModelError(
                    f"{asked} leaves {left:.1f} of {steps.total:,} inputs of layers, and {least} have to stay: every "
                    "layer needs one, and of every layer one feature has to be read",
                    "keep more",
                )
        elif self.kind in ("params", "macs"):
            smallest = self._size(network, steps.kept(len(steps.steps)))
            if smallest > self.limit:
                raise ModelError(
                    f"--{self.kind} {self.limit:,.0f} cannot be met: with one input for every layer the network still "
                    f"has {smallest:,.0f}",
                    "choose a larger budget, or exclude fewer layers",
                )

    def choose(self, loop: Loop) -> float:
        """Drop inputs of the network that is trained until the goal is met, in place.

        Returns:
            What was reached: the size that a budget counts, or the share of inputs that went.

        Raises:
            InputError: The accuracy asked for is not there even before anything goes.
        """
        steps = self._order(loop.network, self.method.gates)
        removed = self._removed(loop, steps)
        kept = steps.kept(removed)
        if self.kind in ("params", "macs"):
            kept, reached = self._filled(loop.network, steps, removed)
        else:
            reached = removed / steps.total
        drop(loop.network, kept)
        return reached

    def _order(self, network: fx.GraphModule, gating: Gating) -> Order:
        found = scores(network, gating, self.context.samples()[0] if gating == "contribution" else None)
        return order(found, short_circuits(network), "all" if self.kind == "threshold" else self.method.scope)

    def _removed(self, loop: Loop, steps: Order) -> int:
        every = len(steps.steps)
        if self.kind == "floor":
            return self._by_accuracy(loop, steps)
        if self.kind == "threshold":
            return self._shut(steps)
        if self.kind in ("params", "macs"):
            found = fewest(every, lambda n: self._size(loop.network, steps.kept(n)) <= self.limit)
            return every if found is None else found
        if self.method.scope == "layer":
            return steps.before(self.ratio + 1e-9)
        return min(every, round(self.ratio * steps.total))

    def _shut(self, steps: Order) -> int:
        shut = steps.before(self.method.tau)
        if not shut:
            raise InputError(
                f"no gate is below --tau {self.method.tau:g}: the lowest is at {min(steps.keys, default=1.0):.3f}",
                "--optimizer adamw --lr 0.01, by which gates move faster, more --strength or --epochs, or a --ratio",
            )
        return shut

    def _filled(self, network: fx.GraphModule, steps: Order, removed: int) -> tuple[dict[str, Tensor], float]:
        """Some of the last inputs to go given back, where more than 2 % of the budget are left over; and the size."""
        kept = steps.kept(removed)
        reached = self._size(network, kept)
        for layer, column in steps.steps[:removed][: -_TRIES - 1 : -1]:
            if reached >= 0.98 * self.limit:
                break
            kept[layer][column] = True
            size = self._size(network, kept)
            if size <= self.limit:
                reached = size
            else:
                kept[layer][column] = False
        return kept, reached

    def _by_accuracy(self, loop: Loop, steps: Order) -> int:
        """The most that can go at once with the accuracy that is asked for; training wins some back afterwards."""
        start, method = loop.validated()[0], self.method
        floor = start - (method.max_drop or 0.0) / 100 if method.min_accuracy is None else method.min_accuracy

        def fits(removed: int) -> bool:
            drop(loop.network, steps.kept(removed))
            return loop.validated()[0] >= floor - 1e-9

        found = most(len(steps.steps), fits)
        if found is None:
            raise InputError(
                f"--min-accuracy {floor:g}: before any input goes, {start:.4g} of the validation samples are right",
                "a lower one, or more --epochs",
            )
        return found

    def _size(self, network: fx.GraphModule, kept: Mapping[str, Tensor]) -> float:
        """What the budget counts in the network that reads these inputs alone, once its dead units are gone."""
        network = copy.deepcopy(network).cpu()
        drop(network, kept)
        coupling = self.context.rebuilt(folded_network(network))
        dead = self.context.dead_units(coupling)
        return size_of(coupling, self.context.budget.kind)(coupling.alive(dead))
