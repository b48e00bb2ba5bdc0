"""Which scores are the largest, asked again and again of scores that change little in between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NEAR = 0.03  # of the last bound: the next is looked for where it has moved by less
_WIDER = 4.0  # times as far as it moved last time
_LEAST = 1e-3  # of the bound
_MANY = 1 << 14  # scores of which a sample is worth its while
_SAMPLE = 1 << 14  # at most, and an eighth of them
_SURE = 3.0  # standard deviations
_TINY = float(np.finfo(np.float32).tiny)


class Ranking:
    """The largest of scores: only those near the last bound are put into order, the others are counted.

    What it gives does not depend on what it was asked before; how long it takes does.
    """

    def __init__(self) -> None:
        self._bound: float | None = None  # of what stayed last time, the smallest
        self._near = math.inf  # how near the next is expected, as a share of it

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
        bound, found = (self._bound_near if scores.is_cpu else _bound_of)(scores, count)
        if out.dtype == torch.bool and scores.is_cpu:  # NumPy compares several times as fast
            np.greater_equal(scores.numpy(), bound, out=out.numpy())
        else:
            torch.ge(scores, bound, out=out)
        if found > count:
            out[(scores == bound).nonzero().flatten()[count - found :]] = False
        return out

    def _bound_near(self, scores: Tensor, count: int) -> tuple[float, int]:
        """The smallest of the largest scores, and how many are no smaller."""
        values = scores.numpy()
        near, more = values, 0  # what is put into order, and how many beside it are larger
        for low, high in self._guesses(values, count):
            above, among = values >= high, values >= low
            over, within = int(np.count_nonzero(above)), int(np.count_nonzero(among))
            if over < count <= within:
                near, more = np.compress(above ^ among, values), over
                break
        place = len(near) - (count - more)
        ordered = np.partition(near, place)
        bound = float(ordered[place])
        # Of equal scores some may stand before their place
        found = more + len(near) - place + int(np.count_nonzero(ordered[:place] >= bound))
        if self._bound and math.isfinite(bound - self._bound):
            self._near = max(_WIDER * abs(bound / self._bound - 1), _LEAST)
        self._bound = bound
        return bound, found

    def _guesses(self, values: np.ndarray[Any, Any], count: int) -> Iterator[tuple[float, float]]:
        """Where the bound may be: near the last one, if that moved little, or near that of a sample."""
        if self._bound is not None and self._near < _NEAR:
            reach = self._near * abs(self._bound)
            yield self._bound - reach, self._bound + reach
        if len(values) < _MANY:
            return
        sample = values[:: max(len(values) // _SAMPLE, 8) | 1]  # odd, as columns are often alike and rows even
        share = count / len(values)
        deviation = math.sqrt(len(sample) * share * (1 - share)) + 1
        places = [len(sample) * (1 - share) + sign * _SURE * deviation for sign in (-1, 1)]
        low, high = (min(max(round(place), 0), len(sample) - 1) for place in places)
        ordered = np.partition(sample, (low, high))
        # Where many are zero, they need no order
        yield max(float(ordered[low]), _TINY), float(ordered[high])


def _bound_of(scores: Tensor, count: int) -> tuple[float, int]:
    """The same, on a GPU."""
    bound = scores.kthvalue(len(scores) - count + 1).values
    return float(bound), int((scores >= bound).sum())


class Magnitudes:
    """The largest magnitudes of several tensors, each ranked by itself or all together, again and again."""

    def __init__(self, together: bool) -> None:
        self.together = together
        self._rankings: dict[str, Ranking] = {}
        self._lengths: list[int] = []
        self._sizes, self._masks = torch.empty(0), torch.empty(0)  # memory of their size comes at a price

    def largest(self, tensors: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
        """1 at the largest magnitudes, 0 elsewhere, of their shapes: every tensor keeps one.

        What it gives holds until the next question.

        Args:
            tensors: By name, on one device; the same names and shapes every time.
            keep: The share that stays, of each tensor or of all.
        """
        self._look(tensors)
        self._rank("now", keep)
        masks = zip(tensors, self._parts(self._masks), strict=True)
        return {name: mask.reshape(tensors[name].shape) for name, mask in masks}

    def next_cut(self, keep: float) -> float:
        """Of all magnitude that the largest have, the share that goes where fewer stay: ``keep`` of what was there."""
        held = float(torch.dot(self._sizes, self._masks))
        self._rank("next", keep)
        return 1 - float(torch.dot(self._sizes, self._masks)) / held if held else 0.0

    def _look(self, tensors: Mapping[str, Tensor]) -> None:
        lengths = [tensor.numel() for tensor in tensors.values()]
        device = next(iter(tensors.values())).device
        if self._lengths != lengths or self._sizes.device != device:
            self._lengths = lengths
            self._sizes, self._masks = (torch.empty(sum(lengths), device=device) for _ in range(2))
        for size, tensor in zip(self._parts(self._sizes), tensors.values(), strict=True):
            torch.abs(tensor.detach().reshape(-1), out=size)

    def _parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        return flat.split_with_sizes(self._lengths)

    def _rank(self, question: str, keep: float) -> None:
        """Write the masks."""
        sizes, masks = self._parts(self._sizes), self._parts(self._masks)
        if not self.together:
            for i, (size, mask) in enumerate(zip(sizes, masks, strict=True)):
                self._largest(f"{question} {i}", size, keep, mask)
            return
        tops = [_place_of_largest(size) for size in sizes]
        most = [size[top].clone() for size, top in zip(sizes, tops, strict=True)]
        for size, top in zip(sizes, tops, strict=True):
            size[top] = torch.inf
        self._largest(question, self._sizes, keep, self._masks)
        for size, top, value in zip(sizes, tops, most, strict=True):
            size[top] = value

    def _largest(self, question: str, sizes: Tensor, keep: float, masks: Tensor) -> None:
        ranking = self._rankings.setdefault(question, Ranking())
        ranking.largest(sizes, max(1, round(keep * len(sizes))), masks)


def _place_of_largest(sizes: Tensor) -> int:
    return int(sizes.numpy().argmax() if sizes.is_cpu else sizes.argmax())  # NumPy is ten times as fast
