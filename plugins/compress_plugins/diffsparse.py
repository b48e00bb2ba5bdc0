"""Differentiable sparsification: scales behind learned thresholds, which training makes exactly zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import fx

from compress.plugin import Context, ModelError, option
from compress_plugins import thresholds
from compress_plugins.blocks import Blocks
from compress_plugins.gates import UnitGates
from compress_plugins.norm_scales import ThresholdedNorms
from compress_plugins.sparse import Components, Norm, Sparse, check_options, summed, total_l1, with_budget

On = Literal["auto", "batchnorm", "units", "blocks"]
Gate = Literal["before", "after"]
Press = Literal["chosen", "all"]
Regulariser = Literal["l1", "lp", "l21", "l12"]


@dataclass(frozen=True)
class DiffSparse:
    """Puts scales of channels, or of blocks, behind thresholds that are learned with them, until some are zero"""

    source: ClassVar[str] = (
        "Lee, Differentiable Sparsification for Deep Neural Networks, 2019: equation 12, with the sign of beta that "
        "starts at 0.5; section 4.1 for channels"
    )

    granularities: ClassVar[tuple[str, ...]] = ("unit",)

    keep: float | None = option(None, "fraction of the units that stays: 0.5 where no budget, keep or lam is given")
    on: On = option(
        "auto",
        "what has a scale: batchnorm, the channels of batch norms; units, gates on layers; blocks, residual branches; "
        "auto: batchnorm where the network has any, else units",
    )
    lam: float | None = option(None, "weight of the regulariser in the loss; with a budget, where its control starts")
    press: Press = option(
        "chosen",
        "with a budget, which scales lambda presses on: chosen, those that the budget takes now; all, as the paper",
    )
    regulariser: Regulariser = option("l1", "norm of the scales: l1, lp (p below 1), l21 or l12 with layers as groups")
    p: float = option(0.5, "exponent of lp")
    gate: Gate = option("before", "of units: whether gates stand before or after the activation behind a layer")
    rectified: bool = option(False, "let zeros come back: the gradient of ELU where the threshold's is zero")
    settle: float = option(0.25, "with a budget, the last part of the training, in which what was closed stays so")

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise ValueError(f"p: must be above 0 and below 1, got {self.p:g}")
        check_options(self.lam, self.keep, self.settle)
        if self.gate == "after" and self.on in ("batchnorm", "blocks"):
            raise ValueError("gate: says where gates on units stand, choose --on units")

    def start(self, context: Context) -> Sparse:
        """A session; raises InputError or ModelError where nothing can have a scale."""
        context = with_budget(context, self.lam, self.keep)
        network, budget = context.copy(), context.has_budget
        return Sparse(
            context, network, self._components(context, network), self._norm(), lam=self.lam,
            settle=self.settle if budget else 0.0, narrow=budget and self.press == "chosen",
        )  # fmt: skip

    def _components(self, context: Context, network: fx.GraphModule) -> Components:
        if self.on == "blocks":
            return Blocks(context, network, self.rectified)
        if self.on == "batchnorm" or (self.on == "auto" and self.gate == "before"):
            try:
                return ThresholdedNorms(context, network, self.rectified)
            except ModelError:
                if self.on == "batchnorm":
                    raise
        return UnitGates(context, network, self.rectified, self.gate)

    def _norm(self) -> Norm:
        if self.regulariser == "lp":
            return summed(partial(thresholds.lp, p=self.p, eps=1e-3))
        if self.regulariser == "l1":
            return total_l1
        return summed({"l21": thresholds.l21, "l12": thresholds.l12}[self.regulariser])
