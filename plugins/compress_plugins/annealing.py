"""Annealed pruning: fewer and fewer of the largest weights, or units, stay while the network trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx

from compress.plugin import Context, InputError, Loop, Plan, Session, option
from compress_plugins.amounts import check_fraction, check_one_size
from compress_plugins.narrowing import Units, Weights, nonzero_figure

Variant = Literal["during", "before", "scratch"]
Scope = Literal["layer", "all"]
Every = Literal["epoch", "step"]

_KEEP = 0.5  # where nobody says how much


@dataclass(frozen=True)
class Annealing:
    """Masks the smallest weights, more and more of them while the network trains, and slices by what is left"""

    source: ClassVar[str] = (
        "Resnick, Activation, Dropout, Pruning, University of Colorado Boulder 2020, section on annealed pruning; "
        "schedule of Barbu et al., Feature Selection with Annealing, TPAMI 2017"
    )

    keep: float | None = option(None, "fraction of each layer's weights that stays: 0.5 where no budget is given")
    mu: float = option(10.0, "how early the most is masked; 0 masks evenly over the first half of the training")
    variant: Variant = option(
        "during",
        "when: during the training, before it, or scratch: half of the epochs find the masks, half train new weights",
    )
    scope: Scope = option("layer", "layer: every layer keeps its fraction; all: the largest weights of all layers stay")
    every: Every = option("epoch", "how often more is masked")
    first_layer: bool = option(False, "mask weights of layers that read the model's input as well")
    unit_method: str | None = option(None, "mask whole units, those that this criterion scores lowest, not weights")

    def __post_init__(self) -> None:
        check_fraction(self.keep)
        if not 0 <= self.mu < math.inf:
            raise ValueError(f"mu: must be 0 or more, got {self.mu:g}")
        if self.unit_method is not None and (self.scope == "all" or self.first_layer):
            raise ValueError("unit_method: masks whole units, scope and first_layer are about weights")

    def start(self, context: Context) -> Annealed:
        """A session; raises InputError or ModelError where there is nothing to mask."""
        check_one_size(context, self.keep)
        keep = _KEEP if self.keep is None else self.keep
        if self.unit_method is not None:
            return Annealed(self, context, Units(context, self.unit_method, keep, self.mu))
        weights = Weights(context, keep, self.mu, stacked=self.scope == "all", first=self.first_layer)
        return Annealed(self, context, weights)


class Annealed(Session):
    """One training with masks that only grow. Masked weights are zero after every step, whatever momentum does.

    At position i of N (epochs, or steps), M_i = k + (M - k) max(0, (N - 2i) / (2 i mu + N)) of M weights stay. Position
    0 is the network as it came, so that the first masks come after the first epoch.
    """

    def __init__(self, method: Annealing, context: Context, choice: Weights | Units) -> None:
        super().__init__(context)
        self.method, self.choice = method, choice
        self.masks: dict[str, Tensor] = {}
        self.counts: list[list[int]] = []  # epoch, parameters that are not zero
        if method.variant == "before":
            self.masks = choice.narrowed(self.network, 1, 1, {})
            self._mask(self.network)

    def begin(self, loop: Loop) -> None:
        if self.method.variant == "scratch" and loop.total // loop.steps_per_epoch < 2:
            raise InputError("--variant scratch needs one epoch to find the masks and one to train", "--epochs 20")
        if not self.counts:
            self._count(loop)

    def before_step(self, loop: Loop) -> None:
        """From scratch, each half has the whole schedule of the learning rate to itself."""
        if self.method.variant == "scratch":
            half = self._horizon(loop) * loop.steps_per_epoch
            first, last = (0, half) if loop.step < half else (half, loop.total)
            rate = loop.rate((loop.step - first) * loop.total // (last - first))
            for group in loop.optimizer.param_groups:
                group["lr"] = rate

    def after_step(self, loop: Loop) -> None:
        if self.method.every == "step":
            self._narrow(loop, loop.step, self._horizon(loop) * loop.steps_per_epoch)
        self._mask(loop.network)

    def after_epoch(self, loop: Loop) -> None:
        if self.method.every == "epoch":
            self._narrow(loop, loop.epoch, self._horizon(loop))
        if self.method.variant == "scratch" and loop.epoch == self._horizon(loop):
            self._begin_anew(loop)
        self._mask(loop.network)
        self._count(loop)

    def ready(self, loop: Loop) -> bool:
        """Once all masks are there; from scratch, once new weights have been trained under them."""
        if self.method.variant == "scratch":
            return loop.epoch > self._horizon(loop)
        return self.method.variant == "before" or 2 * loop.epoch >= self._horizon(loop)

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        return self.choice.numbers(self.masks)

    def state(self) -> dict[str, Any]:
        return {"masks": self.masks, "counts": self.counts, "choice": self.choice.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.masks, self.counts = dict(state["masks"]), [list(each) for each in state["counts"]]
        self.choice.load(state["choice"])

    def plan(self, context: Context) -> Plan:
        return replace(self.choice.plan(context, self.masks), figures=(nonzero_figure(self.counts),))

    def _horizon(self, loop: Loop) -> int:
        """Epochs of the training in which masks are found."""
        epochs = loop.total // loop.steps_per_epoch
        return epochs // 2 if self.method.variant == "scratch" else epochs

    def _narrow(self, loop: Loop, position: int, total: int) -> None:
        more = self.choice.left(position, total) != self.choice.left(position - 1, total)
        if more and self.method.variant != "before":
            self.masks = self.choice.narrowed(loop.network, position, total, self.masks)

    def _mask(self, network: fx.GraphModule) -> None:
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.masks[name] = mask = mask.to(parameters[name].device)
                parameters[name].mul_(mask)

    def _begin_anew(self, loop: Loop) -> None:
        fresh = self.context.fresh(self.context.generator())
        with torch.no_grad():
            for name, tensor in (*loop.network.named_parameters(), *loop.network.named_buffers()):
                if name in fresh:
                    tensor.copy_(fresh[name])
        loop.optimizer.state.clear()

    def _count(self, loop: Loop) -> None:
        left = sum(int(torch.count_nonzero(p)) for p in loop.network.parameters())
        self.counts.append([loop.epoch, left])
