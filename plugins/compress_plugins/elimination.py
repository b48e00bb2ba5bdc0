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

    Each unit that goes changes the whole inverse by a product of thin matrices, but only its diagonal blocks and later
    the columns of single units are asked for. So products wait, and are carried out many at a time.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to H, relative to the mean of its diagonal.

    Attributes:
        energy: The squared output of the layer, 0 for one that puts out nothing.
        units: (n,) - those that are left.
        weight: (n, k, outputs), refitted to them.
        blocks: (n, k, k) - the diagonal blocks of the inverse.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        xx, self.units = problem.xx, problem.units
        scale = float(xx.diagonal().mean())
        eye = torch.eye(len(xx), dtype=xx.dtype)
        self.energy = float((problem.weight * (xx @ problem.weight)).sum())
        self.weight = problem.weight[problem.columns]
        own = problem.columns.flatten()
        self._inverse = torch.linalg.inv(xx + max(ridge * scale, 1e-30) * eye)[own][:, own]
        self._width = problem.columns.shape[1]
        shape = (len(self.units), self._width)
        self.blocks = self._inverse.reshape(*shape, *shape).diagonal(dim1=0, dim2=2).movedim(-1, 0)
        self._caught_up()

    def _caught_up(self) -> None:
        self._slots = torch.arange(len(self.units))  # where units are in the inverse, counted in widths
        self._sides, self._solved = self._inverse[:, :0], self._inverse[:0]  # whose product waits

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        rise = (self.weight * torch.linalg.solve(self.blocks, self.weight)).sum((1, 2))
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self.units, rise)

    def remove(self, unit: int) -> None:
        """Take a unit out and refit what is left."""
        gone = self.units == unit
        if not bool(gone.any()):
            return
        own, stay = self._places(gone), ~gone
        side = self._inverse[:, own] - self._sides @ self._solved[:, own]
        both = torch.cat([side.T, self.weight[gone].flatten(0, 1)], 1)
        solved, change = torch.linalg.solve(side[own], both).split([len(side), both.shape[1] - len(side)], 1)
        self.units, self._slots = self.units[stay], self._slots[stay]
        left = side.unflatten(0, (-1, self._width))[self._slots]
        self.weight = self.weight[stay] - left @ change
        self.blocks = self.blocks[stay] - left @ solved.unflatten(1, (-1, self._width))[:, self._slots].movedim(0, 1)
        self._sides, self._solved = torch.cat([self._sides, side], 1), torch.cat([self._solved, solved])
        if self._sides.shape[1] >= PUT_OFF:
            places = self._places(torch.ones_like(self.units, dtype=torch.bool))
            waiting = self._sides[places] @ self._solved[:, places]
            self._inverse = self._inverse[places][:, places].sub_(waiting)
            self._caught_up()

    def _places(self, which: Tensor) -> Tensor:
        """Rows of the inverse that belong to some of the units."""
        return (self._slots[which][:, None] * self._width + torch.arange(self._width)).flatten()


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
