"""Activation pruning: units that are nearly silent on training samples go first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.plugin import Context, Group, option
from compress_plugins.dependency import Dependency


@dataclass(frozen=True)
class Activation:
    """Mean magnitude of what a unit hands to the layers that read it, on training samples"""

    source: ClassVar[str] = "Hu et al., Network Trimming, 2016, with magnitudes in place of the share of zeros"

    samples: int = option(1000, "training samples; labels are not used")

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: must be 1 or more, got {self.samples}")

    def score(self, group: Group, context: Context) -> Tensor:
        """Mean over the readers of the mean magnitude of the unit's activations."""
        if self not in context.memo:
            context.memo[self] = dict(self._sizes(context))
        found: Tensor = context.memo[self][group.name]
        return found

    def _sizes(self, context: Context) -> Iterator[tuple[str, Tensor]]:
        for group, sizes in context.magnitudes(self.samples):
            if isinstance(sizes, str):
                context.notes[group.name] = {"ranked": f"as by dependency: {sizes}"}
                sizes = Dependency().score(group, context)
            yield group.name, sizes
