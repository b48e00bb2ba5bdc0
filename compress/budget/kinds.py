"""What a budget counts, and how much of it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import InputError
from compress.graph import Coupling, macs, parameters, stored_bytes

Scores = Mapping[str, NDArray[np.floating]]
Removed = dict[str, NDArray[np.int64]]
Alive = NDArray[np.bool_]
Size = Callable[[Alive], float]  # of the network of which these labels stay

Kind = Literal["ratio", "macs", "params", "bytes", "latency"]

# By kind its size, from the analysed network and what stays of it. Another kind is one more entry here, in Kind and in
# BudgetKind; or a size that a caller gives to `fit`, where it takes more than that to know it.
SIZES: Mapping[str, Callable[[Coupling, Alive], float]] = {
    "macs": macs,
    "params": parameters,
    "bytes": stored_bytes,
}

SLACK = 0.02  # a budget of which less than this share is left over counts as met
MEASURED = 0.05  # the same for what is measured and not counted


@dataclass(frozen=True)
class Budget:
    """How small the result is to be.

    Attributes:
        kind: ``ratio`` - fraction of units removed; the others - what is kept.
        value: The fraction, or an absolute number if it is 1 or more (multiply-accumulates of one sample,
            parameters, bytes, microseconds).
    """

    kind: Kind = "ratio"
    value: float = 0.3

    def __post_init__(self) -> None:
        if self.kind == "ratio" and not 0 < self.value < 1:
            raise InputError(
                f"--ratio: must lie between 0 and 1, got {self.value:g}", "--ratio 0.3 removes 30 % of units"
            )
        if self.value <= 0:
            raise InputError(f"--{self.kind}: must be above 0, got {self.value:g}")

    def limit(self, dense: float) -> float:
        """The largest size within the budget, for a network of the given size; not for a ratio."""
        return self.value * dense if self.value < 1 else self.value

    def part(self, share: float, dense: float) -> Budget:
        """The budget of a network that has gone ``share`` of the way to this one."""
        if self.kind == "ratio":
            return Budget("ratio", share * self.value)
        return Budget(self.kind, max(1.0, dense - share * (dense - min(dense, self.limit(dense)))))


def size_of(coupling: Coupling, kind: Kind) -> Size:
    """The size that a kind of budget counts, by what stays."""
    count = SIZES[kind]
    return lambda alive: float(count(coupling, alive))


def everything(coupling: Coupling) -> Alive:
    """By label, that it stays."""
    return np.ones(coupling.flow.relations.count, dtype=bool)


@dataclass(frozen=True)
class Outcome:
    """What a budget came to.

    Attributes:
        target: The fraction of units to remove for ``ratio``; else the largest size within the budget.
        reached: The fraction that was removed, or the size.
        counted: Of a ratio, what it is a fraction of.
    """

    kind: Kind
    target: float
    reached: float
    counted: str = "units"

    @property
    def short(self) -> bool:
        """Whether more than 2 % (of the budget, or of all units) lie between what was asked for and what came.

        Of a latency 5 %: two measurements of one network differ by about that.
        """
        if self.kind == "ratio":
            return abs(self.reached - self.target) > SLACK
        return self.reached < (1 - self._slack) * self.target

    @property
    def over(self) -> bool:
        """Whether the result is larger than the budget; a latency, by more than it may be measured differently."""
        slack = self._slack if self.kind == "latency" else 0.0
        return self.kind != "ratio" and self.reached > (1 + slack) * self.target

    @property
    def _slack(self) -> float:
        return MEASURED if self.kind == "latency" else SLACK
