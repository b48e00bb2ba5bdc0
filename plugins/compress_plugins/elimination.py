"""Backward elimination: which units a layer can do without, if it may be refitted to do without them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compress.plugin import Problem
from compress_plugins.symmetric import inverse, products

PUT_OFF = 96  # rows of products that wait to be subtracted
LIKELY = 72  # units that may go next


class Elimination:
    """One least-squares problem from which units go one by one; what is left is refitted each time, exactly.

    A block form of the optimal brain surgeon. With H the second moments of the inputs and W the weight, taking out
    the columns u and refitting the others raises the squared error by ``tr((H^-1_uu)^-1 (W W')_uu)``.

    Each unit that goes changes H^-1 and W W' by products of thin matrices, but only the diagonal blocks and later the
    rows of single units are asked for. So products wait, and are carried out many at a time; the last units then move
    to the places of those that are gone.

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
        # Takes the place of a unit's block of the inverse, so that it costs nothing any more
        self._never = torch.eye(self._width, dtype=problem.weight.dtype) * torch.finfo(problem.weight.dtype).max
        # H^-1 is to lose sides' solved, W W' solved' across + across' solved
        self._sides, self._solved, self._across = problem.weight.new_empty(3, room, problem.columns.numel())
        self._start()

    def _start(self) -> None:
        """Nothing waits, and nothing that is gone has a place."""
        self._gone: list[int] = []
        self._places = {unit: place for place, unit in enumerate(self._units.tolist())}

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        rise = _solve(self._inverse_blocks, self._product_blocks)
        rise = rise.flatten() if self._width == 1 else rise.diagonal(dim1=1, dim2=2).sum(1)
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self._units, rise)

    def remove(self, unit: int, cost: Tensor | None = None) -> None:
        """Take a unit out and refit what is left.

        Args:
            unit: Nothing happens if it is not read.
            cost: By unit; those of the lowest may go next, and what that takes is computed ahead.
        """
        place = self._places.pop(unit, None)
        if place is None:
            return
        done = len(self._gone) * self._width
        own, now = self._inputs(place), slice(done, done + self._width)
        sides, solved, across = self._sides[:done], self._solved[:done], self._across[:done]
        row = self._inverse.rows(own, self._soon(cost))
        side = torch.addmm(row, sides[:, own].T, solved, alpha=-1, out=self._sides[now])
        row = self._products.rows(own, self._soon(cost))
        row = torch.addmm(row, across[:, own].T, solved, alpha=-1).addmm_(solved[:, own].T, across, alpha=-1)
        if self._width == 1:
            solved = torch.div(side, side[:, own], out=self._solved[now])
        else:
            solved = torch.mm(torch.linalg.inv(side[:, own]), side, out=self._solved[now])
        across = torch.addmm(row, row[:, own], solved, alpha=-0.5, out=self._across[now])
        self._update(side, solved, across)
        self._inverse_blocks[place] = self._never
        self._gone.append(place)
        if now.stop == len(self._sides):
            self._carry_out()

    def _soon(self, cost: Tensor | None) -> Iterator[slice]:
        """The inputs of those that cost least."""
        if cost is not None:
            for unit in cost.topk(min(LIKELY, len(cost)), largest=False).indices.tolist():
                if unit in self._places:
                    yield self._inputs(self._places[unit])

    def _update(self, side: Tensor, solved: Tensor, across: Tensor) -> None:
        """Blocks after a unit has gone."""
        if self._width == 1:
            side, solved, across = (t.view(-1, 1, 1) for t in (side, solved, across))
            self._inverse_blocks.addcmul_(side, solved, value=-1)
            self._product_blocks.addcmul_(solved, across, value=-2)
            return
        side, solved, across = (t.unflatten(1, (-1, self._width)).transpose(0, 1) for t in (side, solved, across))
        self._inverse_blocks.baddbmm_(side.mT, solved, alpha=-1)
        change = solved.mT @ across
        self._product_blocks.sub_(change).sub_(change.mT)

    def _carry_out(self) -> None:
        """Subtract what waits, and close the gaps."""
        count, gone = len(self._units), torch.tensor(self._gone)
        left = count - len(gone)
        alive = torch.ones(count, dtype=torch.bool).index_fill_(0, gone, False)
        holes, last = gone[gone < left], left + alive[left:].nonzero().flatten()
        keep = torch.arange(left).index_put_((holes,), last)
        inputs = torch.arange(count * self._width).unflatten(0, (-1, self._width))
        for matrix, other in ((self._inverse, self._sides), (self._products, self._across)):
            matrix.down_date(inputs[gone].flatten(), self._solved, other)
            matrix.move(inputs[holes].flatten(), inputs[last].flatten(), left * self._width)
        self._units = self._units[keep]
        self._inverse_blocks, self._product_blocks = self._inverse_blocks[keep], self._product_blocks[keep]
        self._sides, self._solved, self._across = (
            waiting[:, : left * self._width] for waiting in (self._sides, self._solved, self._across)
        )
        self._start()

    def _inputs(self, place: int) -> slice:
        return slice(place * self._width, (place + 1) * self._width)


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
    number_of, rank = cell_of.tolist(), torch.zeros(size, dtype=torch.float64)
    done, total = [0] * len(cells), sum(counts)
    for place in range(total):
        cost = _costs(parts, size).add_(barred)
        if len(cells) > 1:
            cost.add_(torch.tensor(_closed(done, counts), dtype=torch.float64)[cell_of])
        unit = int(cost.argmin())
        barred[unit] = cost[unit] = torch.inf
        for part, _ in parts:
            part.remove(unit, cost)
        rank[unit] = place
        done[number_of[unit]] += 1
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
