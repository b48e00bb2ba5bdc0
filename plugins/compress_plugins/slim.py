"""Network slimming as a training: l1 on the scales of batch norms, one cut by rank, and a training after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from compress.plugin import Budget, Context, Loop, option
from compress_plugins import thresholds
from compress_plugins.components import Norms
from compress_plugins.sparse import Sparse, summed


@dataclass(frozen=True)
class Slim:
    """Trains with l1 on the scales of batch norms, cuts the channels with the smallest, and trains what is left"""

    source: ClassVar[str] = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"

    lam: float = option(1e-4, "weight of the sum of all |scale| in the loss")
    share: float = option(0.5, "of all channels, how many go; where a budget is given, that decides")
    finetune: float = option(0.5, "last part of the training, after the cut, with a learning rate schedule of its own")

    def __post_init__(self) -> None:
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam: must be 0 or more, got {self.lam:g}")
        for name, value in (("share", self.share), ("finetune", self.finetune)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: must be from 0 to below 1, got {value:g}")

    def start(self, context: Context) -> Slimmed:
        """A session; raises ModelError where no batch norm has scales to press on."""
        if not context.has_budget:
            context = replace(context, budget=Budget("ratio", self.share))
        network = context.copy()
        # The derivative of |scale| that autograd takes is the sign, the paper's subgradient
        return Slimmed(
            context, network, Norms(context, network, partly=True), summed(thresholds.l1),
            lam=self.lam, steered=False, settle=self.finetune, budget=True,
        )  # fmt: skip


class Slimmed(Sparse):
    """The learning rate goes through its whole schedule twice: before the cut, and after it."""

    def before_step(self, loop: Loop) -> None:
        super().before_step(loop)
        cut = self.end(loop) * loop.steps_per_epoch
        first, last = (0, cut) if loop.step < cut else (cut, loop.total)
        rate = loop.rate((loop.step - first) * loop.total // (last - first))
        for group in loop.optimizer.param_groups:
            group["lr"] = rate
