"""Backward elimination: which units a layer can do without, if it may be refitted to do without them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compress.plugin import Problem
from compress_plugins.symmetric import inverse, products

PUT_OFF = 128  # rows of products that wait to be subtracted


class Elimination:
    """One least-squares problem from which units go one by one; what is left is refitted each time, exactly.

    A block form of the optimal brain surgeon. With H the second moments of the inputs and W the weight, taking out
    the columns u and refitting the others raises the squared error by ``tr((H^-1_uu)^-1 (W W')_uu)``.

    Each unit that goes changes H^-1 and W W' by products of thin matrices, but only the diagonal blocks and later the
    rows of single units are asked for. So products wait, and are carried out many at a time; the last units then move to
    the places of those that are gone.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to H, relative to the mean of its diagonal.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        self._units, self._width = problem.units, problem.columns.shape[1]
        self._inverse, self._products = inverse(problem, ridge), products(problem)
        self._inverse_blocks, self._product_blocks = (
            matrix.blocks(self._width) for matrix in (self._inverse, self._products)
        )
        room = max(PUT_OFF // self._width, 1) * self._width
        # H^-1 is to lose sides' solved, W W' solved' across + across' solved
        self._sides, self._solved, self._across = problem.weight.new_empty(3, room, problem.columns.numel())
        self._start()

    def _start(self) -> None:
        """Nothing waits, and nothing that is gone has a place."""
        self._gone: list[int] = []
        self._places = {unit: place for place, unit in enumerate(self._units.tolist())}
        self._left = self._sides.new_ones(len(self._units))

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        rise = _solve(self._inverse_blocks, self._product_blocks).diagonal(dim1=1, dim2=2).sum(1) * self._left
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self._units, rise)

    def remove(self, unit: int) -> None:
        """Take a unit out and refit what is left."""
        place = self._places.pop(unit, None)
        if place is None:
            return
        before = len(self._gone) * self._width
        own, now = (slice(start, start + self._width) for start in (place * self._width, before))
        sides, solved, across = self._sides[:before], self._solved[:before], self._across[:before]
        side = torch.addmm(self._inverse.rows(own), sides[:, own].T, solved, alpha=-1, out=self._sides[now])
        row = torch.addmm(self._products.rows(own), across[:, own].T, solved, alpha=-1)
        row.addmm_(solved[:, own].T, across, alpha=-1)
        self._solved[now] = _solve(side[:, own], side)
        torch.addmm(row, row[:, own], self._solved[now], alpha=-0.5, out=self._across[now])
        self._update(side, self._solved[now], self._across[now])
        self._inverse_blocks[place] = torch.eye(self._width, dtype=row.dtype)  # anything regular
        self._left[place] = 0
        self._gone.append(place)
        if now.stop == len(self._sides):
            self._carry_out()

    def _update(self, side: Tensor, solved: Tensor, across: Tensor) -> None:
        """Blocks after a unit has gone."""
        side, solved, across = (t.unflatten(1, (-1, self._width)).transpose(0, 1) for t in (side, solved, across))
        self._inverse_blocks.baddbmm_(side.mT, solved, alpha=-1)
        change = solved.mT @ across
        self._product_blocks.sub_(change).sub_(change.mT)

    def _carry_out(self) -> None:
        """Subtract what waits, and close the gaps."""
        gone, left = torch.tensor(self._gone), len(self._units) - len(self._gone)
        holes, last = gone[gone < left], left + self._left[left:].nonzero().flatten()
        keep = torch.arange(left).index_put_((holes,), last)
        inputs = (torch.arange(len(self._units) * self._width)).unflatten(0, (-1, self._width))
        for matrix, other in ((self._inverse, self._sides), (self._products, self._across)):
            matrix.down_date(inputs[gone].flatten(), self._solved, other)
            matrix.move(inputs[holes].flatten(), inputs[last].flatten(), left * self._width)
        self._units = self._units[keep]
        self._inverse_blocks, self._product_blocks = self._inverse_blocks[keep], self._product_blocks[keep]
        self._sides, self._solved, self._across = (
            waiting[:, : left * self._width] for waiting in (self._sides, self._solved, self._across)
        )
        self._start()


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    return right / matrix if matrix.shape[-1] == 1 else torch.linalg.solve(matrix, right)


def order(
    problems: Sequence[Problem], size: int, cells: Sequence[Tensor], counts: Sequence[int], ridge: float
) -> Tensor:
    """By unit, (size,), its place in the order in which units go; the cheapest of all goes first.

    Args:
        problems: All readers of the group; their costs add up, each relative to its squared output.
        size: Units of the group.
        cells: Units that must go in equal shares, disjoint.
        counts: For each cell, how many go; the others keep the order of their costs at the end.
        ridge: See :class:`Elimination`.
    """
    parts = [(Elimination(p, ridge), 1 / p.energy) for p in problems if p.energy > 0]
    cell_of, barred = torch.zeros(size, dtype=torch.int64), torch.full((size,), torch.inf, dtype=torch.float64)
    for number, units in enumerate(cells):
        cell_of[units], barred[units] = number, 0
    rank = torch.zeros(size, dtype=torch.float64)
    done, total = [0] * len(cells), sum(counts)
    for place in range(total):
        closed = torch.tensor(_closed(done, counts), dtype=torch.float64)[cell_of]
        unit = int((_costs(parts, size) + barred + closed).argmin())
        for part, _ in parts:
            part.remove(unit)
        rank[unit], barred[unit] = place, torch.inf
        done[int(cell_of[unit])] += 1
    rest = (barred == 0).nonzero().flatten()
    rank[rest[_costs(parts, size)[rest].argsort(stable=True)]] = torch.arange(total, total + len(rest)).double()
    return rank


def _closed(done: Sequence[int], counts: Sequence[int]) -> list[float]:
    """By cell infinity unless it is among those of which the least part is done."""
    parts = [d / c if d < c else math.inf for d, c in zip(done, counts, strict=True)]
    return [0.0 if part <= min(parts) + 1e-9 else math.inf for part in parts]


def _costs(parts: Sequence[tuple[Elimination, float]], size: int) -> Tensor:
    """The weighted sum of the costs by part."""
    total = torch.zeros(size, dtype=torch.float64)
    for part, weight in parts:
        total.add_(part.costs(size), alpha=weight)
    return total
