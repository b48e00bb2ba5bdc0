"""Which scores are the largest, asked again and again of scores that change little in between."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_NEAR = 0.05  # of the first bound: where the next is looked for
_WIDER = 4.0  # times as far as it moved last time
_LEAST = 1e-3  # of the bound, at least


class Ranking:
    """The largest of scores: only those near the last bound are put into order, the others are counted.

    What it gives does not depend on what it was asked before; how long it takes does.
    """

    def __init__(self) -> None:
        self._bound: float | None = None  # of what stayed last time, the smallest
        self._near = _NEAR

    def largest(self, scores: Tensor, count: int, out: Tensor | None = None) -> Tensor:
        """Which scores are the ``count`` largest, at least 1; of equal ones the first stay.

        Args:
            scores: (n,) on any device.
            count: How many.
            out: Where numbers are written to, 1 or 0, (n,); a tensor of bools if left out.
        """
        scores = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
        if out is None:
            out = torch.empty(len(scores), dtype=torch.bool, device=scores.device)
        if count >= len(scores):
            return out.fill_(True)
        bound, found = (self._bound_in_parts if scores.is_cpu else _bound_of)(scores, count)
        if out.dtype == torch.bool and scores.is_cpu:  # NumPy compares several times as fast
            np.greater_equal(scores.numpy(), bound, out=out.numpy())
        else:
            torch.ge(scores, bound, out=out)
        if found > count:
            out[(scores == bound).nonzero().flatten()[count - found :]] = False
        return out

    def _bound_in_parts(self, scores: Tensor, count: int) -> tuple[float, int]:
        """The smallest of the largest scores, and how many are no smaller."""
        values = scores.numpy()
        near, more = values, 0
        if self._bound is not None:
            reach = self._near * abs(self._bound)
            above, among = values >= self._bound + reach, values >= self._bound - reach
            over, within = int(np.count_nonzero(above)), int(np.count_nonzero(among))
            if over >= count:
                near = values[above]
            elif within >= count:
                near, more = values[above ^ among], over
            else:
                near, more = values[~among], within
        place = len(near) - (count - more)
        ordered = np.partition(near, place)
        bound = float(ordered[place])
        # Of equal scores some may stand before their place
        found = more + len(near) - place + int(np.count_nonzero(ordered[:place] >= bound))
        if self._bound and math.isfinite(bound - self._bound):
            moved = abs(bound / self._bound - 1)
            self._near = min(max(_WIDER * moved, _LEAST), _NEAR)
        self._bound = bound
        return bound, found


def _bound_of(scores: Tensor, count: int) -> tuple[float, int]:
    """The same, on a GPU."""
    bound = scores.kthvalue(len(scores) - count + 1).values
    return float(bound), int((scores >= bound).sum())


class Magnitudes:
    """The largest magnitudes of several tensors, each ranked by itself or all together, again and again."""

    def __init__(self, together: bool) -> None:
        self.together = together
        self._rankings: dict[tuple[str, int], Ranking] = {}
        self._sizes, self._masks = torch.empty(0), torch.empty(0)  # memory of their size comes at a price

    def largest(self, tensors: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
        """1 at the largest magnitudes, 0 elsewhere, of their shapes: every tensor keeps one.

        What it gives holds until the next question.

        Args:
            tensors: By name, on one device; the same names and shapes every time.
            keep: The share that stays, of each tensor or of all.
        """
        masks = self._ranked("largest", tensors, keep)
        return {n: mask.reshape(t.shape) for (n, t), mask in zip(tensors.items(), masks, strict=True)}

    def held_by_others(self, tensors: Mapping[str, Tensor], keep: float) -> float:
        """The share of all magnitude that the others hold; arguments as of `largest`."""
        self._ranked("others", tensors, keep)
        total = float(self._sizes.sum())
        return max(0.0, 1 - float(torch.dot(self._sizes, self._masks)) / total) if total else 0.0

    def _ranked(self, question: str, tensors: Mapping[str, Tensor], keep: float) -> tuple[Tensor, ...]:
        """The masks, flat."""
        sizes, masks = self._looked(tensors)
        if not self.together:
            for i, (size, mask) in enumerate(zip(sizes, masks, strict=True)):
                self._rank((question, i), size, keep, mask)
            return masks
        tops = [_place_of_largest(size) for size in sizes]
        most = [size[top].clone() for size, top in zip(sizes, tops, strict=True)]
        for size, top in zip(sizes, tops, strict=True):
            size[top] = torch.inf
        self._rank((question, 0), self._sizes, keep, self._masks)
        for size, top, value in zip(sizes, tops, most, strict=True):
            size[top] = value
        return masks

    def _rank(self, question: tuple[str, int], sizes: Tensor, keep: float, masks: Tensor) -> None:
        ranking = self._rankings.setdefault(question, Ranking())
        ranking.largest(sizes, max(1, round(keep * len(sizes))), masks)

    def _looked(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Magnitudes and places for masks, flat."""
        lengths = [tensor.numel() for tensor in tensors.values()]
        device = next(iter(tensors.values())).device
        if len(self._sizes) != sum(lengths) or self._sizes.device != device:
            self._sizes, self._masks = (torch.empty(sum(lengths), device=device) for _ in range(2))
        sizes, masks = self._sizes.split(lengths), self._masks.split(lengths)
        for size, tensor in zip(sizes, tensors.values(), strict=True):
            torch.abs(tensor.detach().reshape(-1), out=size)
        return sizes, masks


def _place_of_largest(sizes: Tensor) -> int:
    return int(sizes.numpy().argmax() if sizes.is_cpu else sizes.argmax())  # NumPy is ten times as fast
