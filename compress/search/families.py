"""The families of units that a search gives ratios to: groups that must lose the same share are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.budget.allocation import nearest
from compress.graph import Cluster, Coupling


@dataclass(frozen=True)
class Family:
    """Groups of units that lose the same share.

    Attributes:
        name: Its first group.
        groups: All of them.
        units: How many there are in all.
        steps: In how many equal steps they can go; the last is never taken.
    """

    name: str
    groups: tuple[str, ...]
    units: int
    steps: int

    def step(self, ratio: float) -> int:
        """The step nearest to a share of the units, of two the smaller; the last is never taken."""
        return nearest(np.arange(self.steps), ratio * self.steps)


def families(coupling: Coupling, found: Sequence[Cluster]) -> tuple[Family, ...]:
    """One for each cluster, in their order."""
    return tuple(
        Family(c.groups[0], c.groups, sum(coupling.group(name).size for name in c.groups), c.steps) for c in found
    )
