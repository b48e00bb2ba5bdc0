"""Network slimming as a training: l1 on the scales of batch norms, one cut by rank, and a training after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.plugin import Context, Loop, option
from compress_plugins import thresholds
from compress_plugins.norm_scales import Norms
from compress_plugins.sparse import Sparse, check_options, summed, with_budget


@dataclass(frozen=True)
class Slim:
    """Trains with l1 on the scales of batch norms, cuts the channels with the smallest, and trains what is left"""

    source: ClassVar[str] = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"

    granularities: ClassVar[tuple[str, ...]] = ("unit",)

    keep: float | None = option(None, "fraction of the channels that stays: 0.5 where no budget and no keep is given")
    lam: float = option(1e-4, "weight of the sum of all |scale| in the loss")
    finetune: float = option(0.5, "last part of the training, after the cut, with a learning rate schedule of its own")

    def __post_init__(self) -> None:
        check_options(self.lam, self.keep, self.finetune, "finetune")

    def start(self, context: Context) -> Slimmed:
        """A session; raises ModelError where no batch norm has scales to press on."""
        context = with_budget(context, None, self.keep)
        network = context.copy()
        # The derivative of |scale| that autograd takes is the sign, the paper's subgradient
        return Slimmed(
            context, network, Norms(context, network, partly=True), summed(thresholds.l1),
            lam=self.lam, settle=self.finetune, steered=False,
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
