"""Random pruning: the baseline that every method must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.plugin import Context, Group


@dataclass(frozen=True)
class Random:
    """Removes units or weights at random; the baseline that every other method must beat."""

    def score(self, group: Group, context: Context) -> Tensor:
        """A random order that depends on the seed and the group's name alone."""
        return torch.rand(group.size, generator=_generator(context, group.name))

    def score_weights(self, name: str, weight: Tensor, context: Context) -> Tensor:
        """A random order that depends on the seed and the weight's name alone."""
        return torch.rand(weight.shape, generator=_generator(context, name))


def _generator(context: Context, name: str) -> torch.Generator:
    # It reads no more than 32 bits of its seed.
    return torch.Generator().manual_seed(zlib.crc32(f"{context.seed}:{name}".encode()))
