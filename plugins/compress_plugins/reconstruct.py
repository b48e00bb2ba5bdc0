"""Reconstruction: units whose absence the layers behind them can make up for go first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.plugin import Context, Group, option
from compress_plugins.dependency import Dependency
from compress_plugins.elimination import order


@dataclass(frozen=True)
class Reconstruct:
    """Removes the units that the layers behind them can best do without once refitted, on training samples"""

    source: ClassVar[str] = "block form of Hassibi and Stork, Optimal Brain Surgeon, NeurIPS 1992, layer by layer"
    joint_refit: ClassVar[bool] = True

    samples: int = option(1000, "training samples on which layers are measured; labels are not used")
    ridge: float = option(1e-4, "added to the second moments of a layer's inputs, relative to their mean")
    features: int = option(4700, "inputs a layer may have; units read by a wider one are ranked as by dependency")

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: must be 1 or more, got {self.samples}")
        if self.ridge <= 0:
            raise ValueError(f"ridge: must be above 0, got {self.ridge:g}")

    def score(self, group: Group, context: Context) -> Tensor:
        """The unit's place in a backward elimination: the next to go is one whose loss costs least, or hardly more."""
        if self not in context.memo:
            context.memo[self] = dict(self._orders(context))
        found: Tensor = context.memo[self][group.name]
        return found

    def _orders(self, context: Context) -> Iterator[tuple[str, Tensor]]:
        cells = {name: (cell, steps) for name, cell, steps in _cells(context)}
        for group, problems in context.problems(self.samples, self.features):
            if isinstance(problems, str):
                context.notes[group.name] = {"ranked": f"as by dependency: {problems}"}
                yield group.name, Dependency().score(group, context)
                continue
            units, steps = cells[group.name]
            lost = round(context.reach[group.name] * steps)  # nothing beyond it is asked for
            counts = [lost * (len(u) // steps) for u in units]
            yield group.name, order(problems, group.size, units, counts, self.ridge)


def _cells(context: Context) -> Iterator[tuple[str, list[Tensor], int]]:
    """By group its cells of units that are exchangeable, and in how many steps they may go."""
    for cluster in context.clusters:
        for name in cluster.groups:
            yield name, [torch.as_tensor(c.units) for c in cluster.cells if c.group == name], cluster.steps
