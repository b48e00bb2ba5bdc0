"""How hard a norm has to press so that some components are zero at a given time."""

from __future__ import annotations

import math
from typing import Any

_WINDOW = 10  # steps over which their speed is measured: as long as momentum remembers
_RANGE = 10.0  # the logarithm of the factor by which lambda can change at most on the whole way
_STEP = 0.1  # the logarithm of the factor in one step at most, as its effect shows steps later
_NEAR = 0.02  # of the way: as if at least so much of it were left


class Steering:
    """Changes lambda step by step until the mean of some components falls as fast as it has to.

    It has to fall so that it would be zero at ``goal``, were its speed constant from now on. Lambda grows while it is
    slower than that and falls while it is faster, in proportion, by a bounded factor in each step.

    Args:
        lam: Where lambda starts.
        steps: Of the whole way.
        goal: Share of the way.
    """

    def __init__(self, lam: float, steps: int, goal: float) -> None:
        self.lam, self.steps, self.goal = lam, steps, goal
        self.seen: list[list[float]] = []

    def look(self, done: float, mean: float) -> None:
        """Adapt lambda.

        Args:
            done: Share of the way that is behind, measured in what lets components move: the learning rates.
            mean: Of the components.
        """
        self.seen = [*self.seen[-_WINDOW:], [done, mean]]
        moved = done - self.seen[0][0]
        if moved <= 0 or mean <= 0:
            return
        speed = (self.seen[0][1] - mean) / moved
        wanted = mean / max(self.goal - done, _NEAR)
        most = min(_RANGE / self.steps, _STEP)
        self.lam *= math.exp(min(max(most * (1 - speed / wanted), -most), most))

    def forget(self) -> None:
        """The components are others from now on."""
        self.seen = []

    def state(self) -> dict[str, Any]:
        return {"lam": self.lam, "seen": self.seen}

    def load(self, state: dict[str, Any]) -> None:
        self.lam, self.seen = state["lam"], [list(each) for each in state["seen"]]
