"""Tetris pruning: level the histogram of a layer's weights from above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from compress.plugin import Context, Figure, Plan, Series, option

_MOST = 1_000_000  # bins: no layer has weights for more, and memory grows with them
Rule = Literal["auto", "min", "ignore-empty", "quantile"]


@dataclass(frozen=True)
class Tetris:
    """Bins a layer's weights by value and thins every bin by as many weights as the smallest bin can spare."""

    source: ClassVar[str] = (
        "Resnick, Activation, Dropout, Pruning, University of Colorado Boulder 2020, section on Tetris"
    )

    bin: int = option(500, "number of equal-width bins between a layer's smallest and largest weight")
    pmin: Rule = option(
        "auto", "which bin sets the measure: min, ignore-empty, quantile, or auto (min where it prunes)"
    )
    q: float = option(0.5, "quantile of the non-empty bins' counts, for the rule quantile")
    trim: float = option(0.0, "fraction of the weights at each end that is kept whole and left out of the bins")

    def __post_init__(self) -> None:
        if not 1 <= self.bin <= _MOST:
            raise ValueError(f"bin: must lie between 1 and {_MOST:,}, got {self.bin:,}")
        if not 0 <= self.q <= 1:
            raise ValueError(f"q: must lie between 0 and 1, got {self.q:g}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim: must lie between 0 and 0.5, got {self.trim:g}")

    def plan(self, context: Context) -> Plan:
        """Masks of all layers that may shrink, the rule applied and the counts of each as notes, and histograms."""
        masks: dict[str, Tensor] = {}
        notes: dict[str, dict[str, Any]] = {}
        for name, weight in context.layers().items():
            masks[name], notes[name] = self.mask(weight)
        stay = "stay" if context.granularity == "weight" else "would stay, the share for whole units"
        figures = [self.histogram(n, context.weight(n), mask, notes[n], stay) for n, mask in masks.items()]
        return replace(context.plan_from_masks(masks, notes), figures=tuple(f for f in figures if f is not None))

    def histogram(
        self, name: str, weight: Tensor, mask: Tensor, note: Mapping[str, Any], stay: str = "stay"
    ) -> Figure | None:
        """The bins of one layer before and after, with what its mask keeps; None for a layer of zeros."""
        flat = weight.detach().double().flatten()
        inside = (flat != 0) & self._within(flat, flat != 0)
        values = flat[inside]
        if len(values) == 0:
            return None
        bins = self._bins(values)
        low, high = float(values.min()), float(values.max())
        edges = [low + (high - low) * i / self.bin for i in range(self.bin + 1)]
        counts = torch.bincount(bins, minlength=self.bin)
        after = torch.bincount(bins[mask.flatten()[inside]], minlength=self.bin)
        title = f"{name}: {note['kept_weights']:,} of {note['weights']:,} weights {stay} (rule {note['rule']})"
        series = (Series("before", edges, counts.tolist(), "steps"), Series("after", edges, after.tolist(), "steps"))
        file, axis = f"tetris-{name.replace('.', '-')}", f"weights in each of {self.bin} bins"
        return Figure(file, title, "weight", axis, series)

    def mask(self, weight: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Which weights of one layer stay, and what was done.

        Every bin of P weights loses its ``min(P_min, P) - 1`` smallest by magnitude, so that with the rule ``min``
        exactly M - B (P_min - 1) of M weights stay. Weights that are zero already are neither counted nor kept.
        """
        flat = weight.detach().double().flatten()
        alive = flat != 0
        inside = alive & self._within(flat, alive)
        mask = alive & ~inside
        values = flat[inside]
        bins = self._bins(values)
        counts = torch.bincount(bins, minlength=self.bin)
        measure, rule = self._measure(counts)
        lost = (counts.clamp(max=measure) - 1).clamp(min=0)
        stays = torch.ones(len(values), dtype=torch.bool)
        stays[_smallest(values, bins, lost)] = False
        mask[inside.nonzero().flatten()[stays]] = True
        note: dict[str, Any] = {
            "rule": rule,
            "p_min": int(measure),
            "bins": self.bin,
            "empty_bins": int((counts == 0).sum()),
            "weights": int(alive.sum()),
            "kept_weights": int(mask.sum()),
            "thinned_bins": int((lost > 0).sum()),
        }
        if len(values) == 0:
            note["warning"] = "nothing to prune: all its weights are zero"
        elif int(mask.sum()) == int(alive.sum()):
            note["warning"] = (
                f"nothing pruned, as P_min is {measure} by the rule {rule}: fewer bins (--bin) hold more weights each"
            )
        return mask.reshape(weight.shape), note

    def _within(self, flat: Tensor, alive: Tensor) -> Tensor:
        if self.trim == 0 or not bool(alive.any()):
            return torch.ones_like(alive)
        ordered = flat[alive].sort().values
        cut = int(self.trim * len(ordered))
        return (flat >= ordered[cut]) & (flat <= ordered[len(ordered) - 1 - cut])

    def _bins(self, values: Tensor) -> Tensor:
        """Bin of each value; the largest value belongs to the last bin."""
        if len(values) == 0:
            return torch.zeros(0, dtype=torch.long)
        low, high = values.min(), values.max()
        width = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
        return ((values - low) / width * self.bin).long().clamp(max=self.bin - 1)

    def _measure(self, counts: Tensor) -> tuple[int, str]:
        """P_min and the rule that gave it."""
        filled = counts[counts > 0]
        if len(filled) == 0:
            return 0, "no weights"
        literal = int(counts.min())
        if self.pmin == "min" or (self.pmin == "auto" and literal >= 2):
            return literal, "min"
        if self.pmin == "ignore-empty":
            return int(filled.min()), "ignore-empty"
        q = self.q if self.pmin == "quantile" else 0.5
        return int(torch.quantile(filled.double(), q)), f"quantile {q:g}"


def _smallest(values: Tensor, bins: Tensor, lost: Tensor) -> Tensor:
    """Positions of the ``lost[b]`` smallest magnitudes of every bin ``b``; of equal ones the first in memory."""
    sizes, largest = values.abs(), _largest_lost(values, bins, lost)[bins]
    below = sizes < largest
    equal = (sizes == largest).nonzero().flatten()
    missing = lost - torch.bincount(bins[below], minlength=len(lost))
    equal = equal[bins[equal].argsort(stable=True)]
    counts = torch.bincount(bins[equal], minlength=len(lost))
    rank = torch.arange(len(equal)) - (counts.cumsum(0) - counts)[bins[equal]]
    return torch.cat([below.nonzero().flatten(), equal[rank < missing[bins[equal]]]])


def _largest_lost(values: Tensor, bins: Tensor, lost: Tensor) -> Tensor:
    """By bin the ``lost[b]``-th smallest magnitude, -1 where nothing is lost.

    In the sorted values, whose indices are not needed, every bin is a stretch. Below zero its smallest magnitudes stand
    at its end, above zero at its start; the one across zero is looked at by itself.
    """
    found = torch.full(lost.shape, -1.0, dtype=values.dtype)
    some = lost.nonzero().flatten()
    if len(some) == 0:
        return found
    ordered = torch.from_numpy(np.sort(values.numpy()))  # torch would sort indices along, at ten times the cost
    counts = torch.bincount(bins, minlength=len(lost))
    starts = (counts.cumsum(0) - counts)[some]
    ends = starts + counts[some]
    found[some] = torch.where(ordered[starts] >= 0, ordered[starts + lost[some] - 1], -ordered[ends - lost[some]])
    across = (ordered[starts] < 0) & (ordered[ends - 1] > 0)
    for b, start, end in zip(some[across], starts[across], ends[across], strict=True):
        found[b] = ordered[start:end].abs().kthvalue(int(lost[b])).values
    return found
