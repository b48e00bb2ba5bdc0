"""What each family of units bears: accuracy against the share removed, everything else whole (Li et al., sec. 3.2).

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.budget import Scores
from compress.progress import Progress, Silent
from compress.search.bench import Bench
from compress.search.families import Family, families


@dataclass(frozen=True)
class Point:
    """One cut of one family.

    Attributes:
        ratio: The share of units that was asked for.
        removed: Units that went: the nearest number that can go.
        accuracy: On the samples of the judge; None where the cut failed.
        reason: Why it failed.
    """

    ratio: float
    removed: int
    accuracy: float | None
    reason: str = ""


@dataclass(frozen=True)
class Sensitivity:
    """One family, and a point for every ratio."""

    family: Family
    points: tuple[Point, ...]


def sensitivities(
    bench: Bench, scores: Scores, ratios: Sequence[float], progress: Progress | None = None
) -> tuple[Sensitivity, ...]:
    """Every family cut alone, at every ratio.

    Args:
        bench: The network, and the samples that judge it.
        scores: By group, (units,); the lowest go first.
        ratios: Shares of units, each in (0, 1). Those that come to the same number of units are measured once.
        progress: Is told about every cut.
    """
    found = families(bench.coupling, bench.clusters)
    cuts = [(i, family.step(ratio)) for i, family in enumerate(found) for ratio in ratios]
    cuts = list(dict.fromkeys(cuts))
    done = {}
    for i, step in (progress or Silent()).track(cuts, "cutting one family at a time", len(cuts)):
        done[i, step] = _cut(bench, scores, i, step)
    return tuple(
        Sensitivity(family, tuple(Point(ratio, *done[i, family.step(ratio)]) for ratio in ratios))
        for i, family in enumerate(found)
    )


def _cut(bench: Bench, scores: Scores, position: int, step: int) -> tuple[int, float | None, str]:
    """Units removed, accuracy, and why there is none."""
    steps = [step if i == position else 0 for i in range(len(bench.clusters))]
    try:
        cut = bench.candidate(scores, steps)
        return cut.units, bench.accuracy(cut.module).accuracy, ""
    except Exception as error:  # kernels and rules of others may raise anything; the other cuts are still worth it
        return 0, None, f"{type(error).__name__}: {error}".splitlines()[0]
