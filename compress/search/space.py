"""What a search chooses: a method, how much is to be left, and how the cut is spread over the families.

Every family has a weight; with weight ``w`` and an overall ratio ``r`` it keeps ``(1 - r) ** w`` of its units. So equal
weights are one ratio for all, and no weight asks for more than everything. How much is to be left is said as a share of
the objective, and the ratio that just meets it is found by bisection: the size of a cut needs no trial. A network of
hundreds of families would have as many dimensions, too many for some dozen trials; neighbours in the graph therefore
share one weight, in at most ``PARTS`` parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compress.search.families import Family

PARTS = 12  # dimensions for the spread
RATIOS = tuple(tenth / 10 for tenth in range(1, 9))  # of the uniform cuts that a search begins with
_REACH = 1.0  # weights of parts go from exp(-1) to exp(1)
_SMALLEST = 0.02  # of the objective, the least that is tried
_HALVINGS = 14  # of the ratio: closer than one unit of ten thousand
_TOLERANCE = 0.01  # of accuracy: families that lose less than this alone are equally robust
_EXTREME = 4.0  # no sensitivity makes a weight larger than this, or smaller than its inverse


@dataclass(frozen=True)
class Choice:
    """One point of the space.

    Attributes:
        method: Which scores decide the units.
        keep: The share of the objective that may be left.
        follow: How far the sensitivities are followed: 0 not at all, 1 fully. 0 where there are none.
        spread: By part the logarithm of its weight.
    """

    method: str
    keep: float
    follow: float
    spread: tuple[float, ...]


@dataclass(frozen=True)
class Space:
    """Everything a search may choose.

    Attributes:
        families: What may shrink.
        methods: Names of methods.
        prior: By family how robust it is, 1 in the middle; empty where nothing is known.
        size: The share of the objective that is left at these steps.
    """

    families: tuple[Family, ...]
    methods: tuple[str, ...]
    prior: tuple[float, ...]
    size: Callable[[Sequence[int]], float]

    @property
    def part_of(self) -> tuple[int, ...]:
        """By family its part: neighbours, as equal in number as can be."""
        pieces = np.array_split(np.arange(len(self.families)), min(PARTS, len(self.families)))
        return tuple(part for part, piece in enumerate(pieces) for _ in piece)

    @property
    def parts(self) -> int:
        """Into how many parts the families fall."""
        return min(PARTS, len(self.families))

    def steps(self, choice: Choice) -> tuple[int, ...]:
        """By family the steps with which the network just meets the choice's share of the objective."""
        weights = self._weights(choice)
        low, high = 0.0, 0.999
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            over = self.size(self._at(weights, middle)) > choice.keep
            low, high = (middle, high) if over else (low, middle)
        return self._at(weights, high)

    def uniform(self, ratio: float) -> tuple[int, ...]:
        """By family the steps of one ratio for all."""
        return tuple(family.step(ratio) for family in self.families)

    def first(self) -> dict[str, Choice]:
        """What every search begins with, by name: uniform cuts, and cuts of the same sizes led by sensitivities."""
        flat = (0.0,) * self.parts
        found = {}
        for method in self.methods:
            for ratio in RATIOS:
                keep = min(1.0, max(_SMALLEST, self.size(self.uniform(ratio))))
                found[f"{method}, uniform {100 * ratio:.0f} %"] = Choice(method, keep, 0.0, flat)
                if self.prior and round(10 * ratio) % 2 == 0:
                    found[f"{method}, by sensitivity, as small as {100 * ratio:.0f} %"] = Choice(
                        method, keep, 1.0, flat
                    )
        return found

    def dimensions(self) -> dict[str, tuple[float, float]]:
        """By name the bounds of all numbers of a choice; the shares of the objective are on a logarithmic scale."""
        led = {"follow": (0.0, 1.0)} if self.prior else {}
        return {"keep": (_SMALLEST, 1.0), **led, **{f"part {i}": (-_REACH, _REACH) for i in range(self.parts)}}

    def choice(self, values: Mapping[str, float], method: str) -> Choice:
        """The choice that has these numbers, by the names of :meth:`dimensions`."""
        spread = tuple(values[f"part {i}"] for i in range(self.parts))
        return Choice(method, values["keep"], values.get("follow", 0.0), spread)

    def _weights(self, choice: Choice) -> list[float]:
        prior = self.prior or (1.0,) * len(self.families)
        return [p**choice.follow * math.exp(choice.spread[i]) for p, i in zip(prior, self.part_of, strict=True)]

    def _at(self, weights: Sequence[float], ratio: float) -> tuple[int, ...]:
        """By family the steps of an overall ratio, for the family of average weight."""
        mean = sum(w * f.units for w, f in zip(weights, self.families, strict=True)) / sum(
            f.units for f in self.families
        )
        shares = (1 - (1 - ratio) ** (weight / mean) for weight in weights)
        return tuple(family.step(share) for family, share in zip(self.families, shares, strict=True))


def robustness(losses: Mapping[str, float], families: Sequence[Family]) -> tuple[float, ...]:
    """By family a weight: the square root of how much less accuracy it loses alone than the one in the middle.

    Args:
        losses: By family's name the accuracy that it loses, averaged over the shares it was cut by; those that are
            missing count as in the middle.
        families: What may shrink.
    """
    known = {name: max(loss, 0.0) + _TOLERANCE for name, loss in losses.items()}
    middle = float(np.median([known[f.name] for f in families if f.name in known] or [1.0]))
    weights = (math.sqrt(middle / known.get(family.name, middle)) for family in families)
    return tuple(min(_EXTREME, max(1 / _EXTREME, weight)) for weight in weights)
