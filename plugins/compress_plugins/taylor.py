"""Taylor pruning: how much the loss would change to first order if a unit's weights, or one weight, were zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress.plugin import Context, Group, option


@dataclass(frozen=True)
class Taylor:
    """First-order change of the loss on labelled training samples when a unit's weights, or one weight, become zero"""

    source: ClassVar[str] = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019"

    samples: int = option(1000, "training samples whose gradients are taken")
    layers: Literal["each", "together"] = option(
        "each", "single weights: each layer loses the same share, or the least important of all layers together go"
    )

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: must be 1 or more, got {self.samples}")

    def score(self, group: Group, context: Context) -> Tensor:
        """Sum over the coupled tensors of |sum of gradient x weight| of the unit, mean over batches."""
        if self not in context.memo:
            context.memo[self] = self._changes(context)
        found: Tensor = context.memo[self][group.name]
        return found

    def score_weights(self, name: str, weight: Tensor, context: Context) -> Tensor:
        """|gradient x weight|, mean over batches."""
        if self not in context.memo:
            context.memo[self] = self._changes_by_weight(context)
        found: Tensor = context.memo[self][name]
        return found

    def _changes_by_weight(self, context: Context) -> dict[str, Tensor]:
        weights = context.layers()
        totals = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in weights.items()}
        batches = 0
        for gradients in context.gradients(self.samples):
            batches += 1
            for name, weight in weights.items():
                if name in gradients:
                    totals[name] += (gradients[name] * weight).double().abs()
        return {name: total / batches for name, total in totals.items()}

    def _changes(self, context: Context) -> dict[str, Tensor]:
        totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in context.groups}
        batches = 0
        for gradients in context.gradients(self.samples):
            batches += 1
            products = {name: (g * context.weight(name)).double() for name, g in gradients.items()}
            for group in context.groups:
                for member in group.members:
                    if member.tensor in products:
                        values = member.values(products[member.tensor]).reshape(group.size, -1)
                        totals[group.name] += values.sum(1).abs()
        return {name: total / batches for name, total in totals.items()}
