"""Magnitude pruning: what is small goes first, units by the norm of the weights that make them, or single weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress.plugin import Context, Group, option


@dataclass(frozen=True)
class Magnitude:
    """Norm of the weights that make a unit, or the magnitude of each single weight"""

    source: ClassVar[str] = (
        "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1; single weights: Han et al., "
        "Learning both Weights and Connections, NeurIPS 2015"
    )

    norm: Literal["l1", "l2"] = option("l2", "norm of a unit's weights; single weights have only one")
    layers: Literal["each", "together"] = option(
        "each", "single weights: each layer loses the same share, or the smallest of all layers together go"
    )

    def score(self, group: Group, context: Context) -> Tensor:
        """Norm of all weights that make the unit: of every layer that adds to it, where there are several."""
        p = 1 if self.norm == "l1" else 2
        total = torch.zeros(group.size, dtype=torch.float64)
        for member in context.producers(group):
            weight = context.weight(member.tensor).double().abs().pow(p)
            total += member.values(weight).reshape(group.size, -1).sum(1)
        return total if p == 1 else total.sqrt()

    def score_weights(self, name: str, weight: Tensor, context: Context) -> Tensor:
        """|w|."""
        return weight.abs()
