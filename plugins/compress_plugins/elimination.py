"""Backward elimination: which units a layer can do without, if it may be refitted to do without them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compress.plugin import Problem
from compress_plugins.symmetric import diagonal_blocks, inverse, products

LIKELY = 96  # units that may go before all costs are computed again
INPUTS = 216  # of these units, in one layer
SLACK = 1.05  # a unit may cost so many times as much as another did before the last few went
ROUNDING = 1e-12  # of the squared output of a layer


class Elimination:
    """One least-squares problem from which units go; what is left is refitted, exactly.

    A block form of the optimal brain surgeon. With H the second moments of the inputs and W the weight, taking out
    the columns u and refitting the others raises the squared error by ``tr((H^-1_uu)^-1 (W W')_uu)``.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to H, relative to the mean of its diagonal.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        self.width = problem.columns.shape[1]
        self._units = problem.units
        self._inverse, self._products = inverse(problem, ridge), products(problem)

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        rise = _rise(self._inverse.blocks(), self._products.blocks())
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self._units, rise)

    def panel(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """H^-1 and W W' of these units alone, (n width, n width); those that are not read cost nothing."""
        read, places = self._found(units)
        parts = self._inverse.at(places), self._products.at(places)
        if len(read) == len(units):
            return parts
        own, size = self._inverse.inputs(read), len(units) * self.width
        whole = torch.eye(size, dtype=parts[0].dtype), parts[1].new_zeros(size, size)
        for matrix, part in zip(whole, parts, strict=True):
            matrix[own[:, None], own] = part
        return whole

    def remove(self, units: Tensor) -> None:
        """Take units, (n,), out and refit what is left; those that are not read do not matter."""
        _, gone = self._found(units)
        if not len(gone):
            return
        side = self._inverse.rows(gone)
        solved = torch.linalg.solve(side[:, self._inverse.inputs(gone)], side)
        count = len(self._units)
        left = count - len(gone)
        alive = torch.ones(count, dtype=torch.bool).index_fill_(0, gone, False)
        holes, last = gone[gone < left], left + alive[left:].nonzero().flatten()
        for matrix in (self._inverse, self._products):
            matrix.down_date(gone, side, solved)
            matrix.move(holes, last, left)  # closes the gaps
        self._units = self._units[torch.arange(left).index_put_((holes,), last)]

    def _found(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the units are read, and their places."""
        read, places = (units[:, None] == self._units).nonzero(as_tuple=True)
        return read, places


class Panel:
    """A few units, of which some go one by one while all others stay.

    Args:
        inverse, products: (problems, n width, n width) - H^-1 and W W' of these units, changed in place.
        share: (problems,) - what the costs of each problem are multiplied with.
        width: Inputs of one unit.
    """

    def __init__(self, inverse: Tensor, products: Tensor, share: Tensor, width: int) -> None:
        self._inverse, self._products, self._share, self._width = inverse, products, share, width
        # Takes the place of a unit's block, so that it costs nothing any more
        self._never = torch.eye(width, dtype=share.dtype) * torch.finfo(share.dtype).max

    def costs(self) -> Tensor:
        """(n,), the weighted rise of the squared errors by the unit that goes next."""
        return self._share @ _rise(*(diagonal_blocks(m, self._width) for m in (self._inverse, self._products)))

    def remove(self, place: int) -> None:
        """Take a unit out and refit what is left."""
        own = slice(place * self._width, (place + 1) * self._width)
        side, row = self._inverse[:, own].clone(), self._products[:, own]
        if self._width == 1:
            solved = side / side[:, :, own]
            across = row - row[:, :, own] * solved / 2
            self._inverse.addcmul_(side.mT, solved, value=-1)
            self._products.addcmul_(solved.mT, across, value=-1).addcmul_(across.mT, solved, value=-1)
        else:
            solved = torch.linalg.solve(side[:, :, own], side)
            across = torch.baddbmm(row, row[:, :, own], solved, alpha=-0.5)
            self._inverse.baddbmm_(side.mT, solved, alpha=-1)
            change = solved.mT @ across
            self._products.sub_(change).sub_(change.mT)
        self._inverse[:, own, own] = self._never


def _rise(inverse: Tensor, products: Tensor) -> Tensor:
    """(..., n): the costs from the blocks, (..., n, width, width) each."""
    if inverse.shape[-1] == 1:
        return (products / inverse)[..., 0, 0]
    return torch.linalg.solve(inverse, products).diagonal(dim1=-2, dim2=-1).sum(-1)


Parts = Sequence[tuple[Elimination, float]]


def order(
    problems: Sequence[Problem], size: int, cells: Sequence[Tensor], counts: Sequence[int], ridge: float
) -> Tensor:
    """By unit, (size,), its place in the order in which units go; the cheapest of all goes first.

    Units are taken from the cheapest few, one by one, until another would be cheaper if nothing had gone; then the
    costs of all are computed again. As a rule costs rise with what goes, so that this is the order of one by one.

    Args:
        problems: All readers of the group; their costs add up, each relative to its squared output.
        size: Units of the group.
        cells: Units that must go in equal shares, disjoint.
        counts: For each cell, how many go; the others keep the order of their costs at the end.
        ridge: See :class:`Elimination`.
    """
    parts = [(Elimination(p, ridge), 1 / p.energy) for p in problems if p.energy > 0]
    barred = torch.full((size,), torch.inf, dtype=torch.float64)
    barred[torch.cat(list(cells))] = 0
    rank, done, total = torch.zeros(size, dtype=torch.float64), [0] * len(cells), sum(counts)
    while (place := sum(done)) < total:
        likely, cell_of, bounds = _likely(
            _costs(parts, size) + barred, cells, max((p.width for p, _ in parts), default=1)
        )
        gone = likely[list(_going(list(_panels(parts, likely)), cell_of, bounds, done, counts))]
        rank[gone] = torch.arange(place, sum(done)).double()
        barred[gone] = torch.inf
        for part, _ in parts:
            part.remove(gone)
    rest = (barred == 0).nonzero().flatten()
    rank[rest[_costs(parts, size)[rest].argsort(stable=True)]] = torch.arange(total, total + len(rest)).double()
    return rank


def _likely(cost: Tensor, cells: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor, list[float]]:
    """Those units of every cell that cost least, their cells, and by cell what the cheapest of its others costs."""
    share = max(min(LIKELY, INPUTS // width) // len(cells), 1)
    units, bounds = list[Tensor](), list[float]()
    for cell in cells:
        ascending = cell[cost[cell].argsort(stable=True)]
        alive = ascending[cost[ascending] != torch.inf]
        units.append(alive[:share])
        bounds.append(float(cost[alive[share]]) if len(alive) > share else math.inf)
    cell_of = torch.arange(len(cells)).repeat_interleave(torch.tensor([len(u) for u in units]))
    return torch.cat(units), cell_of, bounds


def _panels(parts: Parts, likely: Tensor) -> Iterator[Panel]:
    """One for all problems of the same width."""
    for width in {part.width for part, _ in parts}:
        own = [(part.panel(likely), share) for part, share in parts if part.width == width]
        inverse, products = (torch.stack([panel[number] for panel, _ in own]) for number in (0, 1))
        yield Panel(inverse, products, torch.tensor([share for _, share in own], dtype=torch.float64), width)


def _going(
    panels: Sequence[Panel], cell_of: Tensor, bounds: Sequence[float], done: list[int], counts: Sequence[int]
) -> Iterator[int]:
    """Places of those likely units that go, in order; ``done``, how many of a cell went, is kept up to date."""
    barred, cells, first, total = torch.zeros(len(cell_of), dtype=torch.float64), cell_of.tolist(), True, sum(counts)
    while sum(done) < total:
        closed = _closed(done, counts)
        cost = barred + torch.tensor(closed, dtype=torch.float64)[cell_of] if len(counts) > 1 else barred
        for panel in panels:
            cost = cost + panel.costs()
        place = int(cost.argmin())
        least = float(cost[place])
        bound = min(b for b, c in zip(bounds, closed, strict=True) if c == 0)
        if not first and (least == math.inf or least > SLACK * bound + ROUNDING):
            return
        yield place
        first = False
        barred[place] = torch.inf
        done[cells[place]] += 1
        for panel in panels:
            panel.remove(place)


def _closed(done: Sequence[int], counts: Sequence[int]) -> list[float]:
    """By cell infinity unless it is among those of which the least part is done."""
    parts = [d / c if d < c else math.inf for d, c in zip(done, counts, strict=True)]
    return [0.0 if part <= min(parts) + 1e-9 else math.inf for part in parts]


def _costs(parts: Parts, size: int) -> Tensor:
    """The weighted sum of the costs by part."""
    total = torch.zeros(size, dtype=torch.float64)
    for part, share in parts:
        total.add_(part.costs(size), alpha=share)
    return total
