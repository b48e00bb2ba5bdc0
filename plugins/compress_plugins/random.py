"""Random pruning: the baseline that every method must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.plugin import Context, Group


@dataclass(frozen=True)
class Random:
    """Removes units at random; the baseline that every other method must beat."""

    def score(self, group: Group, context: Context) -> Tensor:
        """A random order that depends on the seed and the group's name alone."""
        # The generator reads no more than 32 bits of its seed.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{context.seed}:{group.name}".encode()))
        return torch.rand(group.size, generator=generator)
