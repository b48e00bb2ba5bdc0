"""Backward elimination: which units a layer can do without, if it may be refitted to do without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.plugin import Problem


class Elimination:
    """One least-squares problem from which units go one by one; what is left is refitted each time, exactly.

    A block form of the optimal brain surgeon. With H the second moments of the inputs and W the weight, taking out
    the columns u and refitting the others raises the squared error by ``tr(W_u' (H^-1_uu)^-1 W_u)``.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to H, relative to the mean of its diagonal.

    Attributes:
        energy: The squared output of the layer, 0 for one that puts out nothing.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        xx = problem.xx
        scale = float(xx.diagonal().mean())
        eye = torch.eye(len(xx), dtype=xx.dtype)
        self.inverse = torch.linalg.inv(xx + max(ridge * scale, 1e-30) * eye)
        self.weight = problem.weight.clone()
        self.energy = float((self.weight * (xx @ self.weight)).sum())
        self.units, self.columns = problem.units, problem.columns
        self.there = torch.arange(len(xx))  # where a feature is in what is left of the inverse

    def costs(self, count: int) -> Tensor:
        """By unit, (count,), the rise of the squared error when it goes next; 0 for units that are not read."""
        columns = self.there[self.columns]
        block = self.inverse[columns[:, :, None], columns[:, None, :]]
        own = self.weight[columns]
        rise = (own * torch.linalg.solve(block, own)).sum((1, 2))
        return torch.zeros(count, dtype=rise.dtype).index_add_(0, self.units, rise)

    def remove(self, unit: int) -> None:
        """Take a unit out and refit what is left."""
        gone = self.units == unit
        if not bool(gone.any()):
            return
        columns = self.there[self.columns[gone].flatten()]
        side = self.inverse[:, columns]
        solved = torch.linalg.solve(side[columns], torch.cat([side.T, self.weight[columns]], 1))
        stay = torch.ones(len(self.inverse), dtype=torch.bool)
        stay[columns] = False
        features = len(self.inverse)
        self.inverse = (self.inverse - side @ solved[:, :features])[stay][:, stay]
        self.weight = (self.weight - side @ solved[:, features:])[stay]
        self.units, self.columns = self.units[~gone], self.columns[~gone]
        places = (self.there >= 0).nonzero().flatten()
        self.there = self.there.clone()
        self.there[places[columns]] = -1
        left = (self.there >= 0).nonzero().flatten()
        self.there[left] = torch.arange(len(left))


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
