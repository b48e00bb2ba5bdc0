"""Backward elimination: which units a layer can do without, if it may be refitted to do without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.plugin import Problem

PUT_OFF = 256  # columns of products that wait to be subtracted from an inverse


class Elimination:
    """One least-squares problem from which units go one by one; what is left is refitted each time, exactly.

    A block form of the optimal brain surgeon. With H the second moments of the inputs and W the weight, taking out
    the columns u and refitting the others raises the squared error by ``tr(W_u' (H^-1_uu)^-1 W_u)``.

    Each unit that goes changes inverse and weight by a product of thin matrices, but only the diagonal blocks and later
    the rows and columns of single units are asked for. So products wait, and are carried out many at a time.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to H, relative to the mean of its diagonal.

    Attributes:
        energy: The squared output of the layer, 0 for one that puts out nothing.
        units: (n,) - those that are left.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        xx, self.units = problem.xx, problem.units
        scale = float(xx.diagonal().mean())
        eye = torch.eye(len(xx), dtype=xx.dtype)
        self.energy = float((problem.weight * (xx @ problem.weight)).sum())
        own, self._width = problem.columns.flatten(), problem.columns.shape[1]
        self._inverse = _inverse(xx + max(ridge * scale, 1e-30) * eye)[own][:, own]
        self._weight = problem.weight[own]
        self._start()

    def _start(self) -> None:
        """Nothing waits: sides @ solved is to be subtracted from the inverse, sides @ changes from the weight."""
        shape = (len(self.units), self._width)
        self._slots = torch.arange(len(self.units))  # where units are in the inverse, counted in widths
        self._sides, self._solved, self._changes = self._inverse[:, :0], self._inverse[:0], self._weight[:0]
        self._blocks = self._inverse.reshape(*shape, *shape).diagonal(dim1=0, dim2=2).movedim(-1, 0)
        rows = self._weight.reshape(*shape, -1)
        self._products = rows @ rows.mT  # (n, k, k) of the rows of each unit's weight

    @property
    def weight(self) -> Tensor:
        """(n * k, outputs), refitted to the units that are left."""
        own = self._places(self.units >= 0)
        return self._weight[own] - self._sides[own] @ self._changes

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        rise = torch.linalg.solve(self._blocks, self._products).diagonal(dim1=1, dim2=2).sum(1)
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self.units, rise)

    def remove(self, unit: int) -> None:
        """Take a unit out and refit what is left."""
        gone = self.units == unit
        if not bool(gone.any()):
            return
        own, stay = self._places(gone), ~gone
        side = self._inverse[:, own] - self._sides @ self._solved[:, own]
        weight = self._weight[own] - self._sides[own] @ self._changes
        solved, change = torch.linalg.solve(side[own], torch.cat([side.T, weight], 1)).split(
            [len(side), weight.shape[1]], 1
        )
        across = self._weight @ change.T - self._sides @ (self._changes @ change.T)
        self.units, self._slots = self.units[stay], self._slots[stay]
        left, across = (t.unflatten(0, (-1, self._width))[self._slots] for t in (side, across))
        self._blocks = self._blocks[stay] - left @ solved.unflatten(1, (-1, self._width))[:, self._slots].movedim(0, 1)
        mixed = left @ across.mT
        self._products = self._products[stay] - mixed - mixed.mT + left @ (change @ change.T) @ left.mT
        self._sides = torch.cat([self._sides, side], 1)
        self._solved, self._changes = torch.cat([self._solved, solved]), torch.cat([self._changes, change])
        if self._sides.shape[1] >= PUT_OFF:
            places = self._places(self.units >= 0)
            self._weight = self.weight
            waiting = self._sides[places] @ self._solved[:, places]
            self._inverse = self._inverse[places][:, places].sub_(waiting)
            self._start()

    def _places(self, which: Tensor) -> Tensor:
        """Rows of the inverse that belong to some of the units."""
        return (self._slots[which][:, None] * self._width + torch.arange(self._width)).flatten()


def _inverse(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix, in half the time where it is positive definite in floating point too."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.inv(matrix) if int(failed) else torch.cholesky_inverse(factor)


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
    parts = [p for p in (Elimination(each, ridge) for each in problems) if p.energy > 0]
    cell_of, quota = torch.full((size,), -1), torch.zeros(len(cells), dtype=torch.float64)
    for number, units in enumerate(cells):
        cell_of[units] = number
    rank, alive = torch.zeros(size, dtype=torch.float64), cell_of >= 0
    done = torch.zeros(len(cells), dtype=torch.int64)
    goal = torch.tensor(list(counts))
    total = int(goal.sum())
    for place in range(total):
        quota = done / goal.clamp(min=1)
        open_ = (done < goal) & (quota <= quota[done < goal].min() + 1e-9)
        cost = _costs(parts, size)
        allowed = alive & open_[cell_of.clamp(min=0)]
        unit = int(torch.where(allowed, cost, torch.inf).argmin())
        for part in parts:
            part.remove(unit)
        rank[unit], alive[unit] = place, False
        done[cell_of[unit]] += 1
    rest = alive.nonzero().flatten()
    rank[rest[_costs(parts, size)[rest].argsort(stable=True)]] = torch.arange(total, total + len(rest)).double()
    return rank


def _costs(parts: Sequence[Elimination], size: int) -> Tensor:
    zero = torch.zeros(size, dtype=torch.float64)
    return sum((part.costs(size) / part.energy for part in parts), zero)
