"""Dependency pruning: the importance of a unit is that of everything it takes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.plugin import Context, Group, option


@dataclass(frozen=True)
class Dependency:
    """Norm of all weights that leave together with a unit, the layers it feeds included."""

    source: ClassVar[str] = "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, group-level importance"

    p: float = option(2.0, "exponent of the norm; 1 sums magnitudes, 2 squares them")
    lookahead: float = option(1.0, "weight of what goes with the unit in other layers; 0 looks at its own layer only")

    def __post_init__(self) -> None:
        if self.p <= 0:
            raise ValueError(f"p: must be above 0, got {self.p:g}")
        if self.lookahead < 0:
            raise ValueError(f"lookahead: must be 0 or more, got {self.lookahead:g}")

    def score(self, group: Group, context: Context) -> Tensor:
        """Sum over the coupled tensors of |w|^p, each tensor relative to its mean so that no layer drowns another."""
        total = torch.zeros(group.size, dtype=torch.float64)
        for position, mass in enumerate(context.unit_mass(group, self.p)):
            share = mass / mass.mean().clamp(min=torch.finfo(mass.dtype).tiny)
            total += share if position == 0 else self.lookahead * share
        return total
