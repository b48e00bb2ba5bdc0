"""Symmetric matrices that lose units one after another: kept whole, or as products of thin ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from compress.plugin import Problem, add_symmetric

THIN = 3  # a factor with more columns for each row than this is not multiplied out


class Symmetric(ABC):
    """A matrix (inputs, inputs), float64, of a layer whose inputs belong to units in their order.

    Args:
        width: Inputs of one unit.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def inputs(self, places: Tensor) -> Tensor:
        """Those of the units at some places, in order."""
        return (places[:, None] * self.width + torch.arange(self.width)).flatten()

    @abstractmethod
    def blocks(self) -> Tensor:
        """(units, width, width): those on the diagonal."""

    @abstractmethod
    def at(self, places: Tensor) -> Tensor:
        """The part of some units alone."""

    @abstractmethod
    def down_date(self, gone: Tensor, side: Tensor, solved: Tensor) -> None:
        """Take units out; what the matrix has at them is undefined from then on.

        Args:
            gone: (n,) - their places.
            side: (n width, inputs) - their rows of the inverse H^-1.
            solved: (n width, inputs) - (H^-1_gg)^-1 H^-1_g.
        """

    @abstractmethod
    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """Put the units at ``last`` into the places ``holes``, and forget all from ``left`` on."""


class Dense(Symmetric):
    """A matrix that is there."""

    def __init__(self, matrix: Tensor, width: int) -> None:
        super().__init__(width)
        self.matrix = matrix

    def blocks(self) -> Tensor:
        return diagonal_blocks(self.matrix, self.width)

    def at(self, places: Tensor) -> Tensor:
        own = self.inputs(places)
        return self.matrix[own[:, None], own]

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        to, of, end = self.inputs(holes), self.inputs(last), left * self.width
        self.matrix[to] = self.matrix[of]
        self.matrix[:, to] = self.matrix[:, of]
        self.matrix = self.matrix[:end, :end]


class Inverse(Symmetric):
    """The inverse of the second moments H of a layer's inputs."""

    @abstractmethod
    def rows(self, places: Tensor) -> Tensor:
        """(n width, inputs): those of some units."""


class DenseInverse(Dense, Inverse):
    """It loses side' solved."""

    def rows(self, places: Tensor) -> Tensor:
        return self.matrix[self.inputs(places)]

    def down_date(self, gone: Tensor, side: Tensor, solved: Tensor) -> None:
        self.matrix.addmm_(side.T, solved, alpha=-1)


class ThinInverse(Inverse):
    """The inverse of H = X'X + s I as (I - X' A X) / s, where A is the inverse of X X' + s I (Woodbury).

    The subtraction loses nothing that matters in float64: its terms are up to 1, and its result is at least s / |H|.
    With s = 1e-4 of the mean diagonal |H| / s is at most 1e4 times the number of inputs, so that half of the 16 digits
    remain at worst; inverting H itself keeps no more, as |H| / s is its condition.

    Args:
        x: (rows, inputs), changed in place.
        inner: (rows, rows) - A, changed in place.
        ridge: s.
        width: Inputs of one unit.
    """

    def __init__(self, x: Tensor, inner: Tensor, ridge: float, width: int) -> None:
        super().__init__(width)
        self._x, self._inner, self._ridge = x, inner, ridge
        by_unit, solved = (t.unflatten(1, (-1, width)).movedim(1, 0) for t in (x, inner @ x))
        self._blocks = (torch.eye(width, dtype=x.dtype) - by_unit.mT @ solved) / ridge
        self._known: dict[int, int] = {}

    def blocks(self) -> Tensor:
        return self._blocks

    def at(self, places: Tensor) -> Tensor:
        self._known = {place: number for number, place in enumerate(places.tolist())}
        self._solved = self._inner @ self._x[:, self.inputs(places)]
        found = (self._solved.T @ self._x[:, self.inputs(places)]).mul_(-1 / self._ridge)
        found.diagonal().add_(1 / self._ridge)
        return found

    def _solve(self, places: Tensor) -> Tensor:
        """A X of some units, remembered from the time when they were looked at."""
        numbers = [self._known.get(place, -1) for place in places.tolist()]
        if min(numbers) < 0:
            return self._inner @ self._x[:, self.inputs(places)]
        return self._solved[:, self.inputs(torch.tensor(numbers))]

    def rows(self, places: Tensor) -> Tensor:
        found = (self._solve(places).T * (-1 / self._ridge)) @ self._x
        own = self.inputs(places)
        found[torch.arange(len(own)), own] += 1 / self._ridge
        return found

    def down_date(self, gone: Tensor, side: Tensor, solved: Tensor) -> None:
        """X X' loses the products of the columns that go, and A changes by Woodbury's formula again."""
        own, other = (t.unflatten(1, (-1, self.width)).transpose(0, 1) for t in (side, solved))
        self._blocks.baddbmm_(own.mT, other, alpha=-1)
        x, ahead = self._x[:, self.inputs(gone)], self._solve(gone)
        rest = torch.eye(x.shape[1], dtype=x.dtype) - x.T @ ahead
        self._inner.addmm_(ahead, torch.linalg.solve(rest, ahead.T))
        self._known.clear()

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        self._x[:, self.inputs(holes)] = self._x[:, self.inputs(last)]
        self._x = self._x[:, : left * self.width]
        self._blocks[holes] = self._blocks[last]
        self._blocks = self._blocks[:left]


class DenseProducts(Dense):
    """The products W W' of a weight's rows, which is refitted."""

    def down_date(self, gone: Tensor, side: Tensor, solved: Tensor) -> None:
        """They lose solved' across + across' solved."""
        own = self.inputs(gone)
        across = torch.addmm(self.matrix[own], self.matrix[own[:, None], own], solved, alpha=-0.5)
        self.matrix.addmm_(solved.T, across, alpha=-1).addmm_(across.T, solved, alpha=-1)


class ThinProducts(Symmetric):
    """The products of the rows of a weight W, (inputs, outputs), which is refitted in place."""

    def __init__(self, weight: Tensor, width: int) -> None:
        super().__init__(width)
        self._weight = weight

    def blocks(self) -> Tensor:
        rows = self._weight.unflatten(0, (-1, self.width))
        return rows @ rows.mT

    def at(self, places: Tensor) -> Tensor:
        weight = self._weight[self.inputs(places)]
        return weight @ weight.T

    def down_date(self, gone: Tensor, side: Tensor, solved: Tensor) -> None:
        """W loses ``solved'`` times its rows that go."""
        self._weight.addmm_(solved.T, self._weight[self.inputs(gone)], alpha=-1)

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        self._weight[self.inputs(holes)] = self._weight[self.inputs(last)]
        self._weight = self._weight[: left * self.width]


def diagonal_blocks(matrix: Tensor, width: int) -> Tensor:
    """(..., inputs / width, width, width): those on the diagonal of (..., inputs, inputs)."""
    if width == 1:
        return matrix.diagonal(dim1=-2, dim2=-1)[..., None, None]
    parts = matrix.unflatten(-1, (-1, width)).unflatten(-3, (-1, width))
    return parts.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def products(problem: Problem) -> Symmetric:
    """The products of the rows of a layer's weight, for the inputs that belong to units, in the order of the units."""
    weight, width = problem.weight[problem.columns.flatten()], problem.columns.shape[1]
    if THIN * weight.shape[1] < len(weight):
        return ThinProducts(weight, width)
    return DenseProducts(_sum(0, weight.T, 1), width)


def inverse(problem: Problem, ridge: float) -> Inverse:
    """The inverse of the second moments of all inputs of a layer, for those that belong to units, in the same order.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to the moments' diagonal, relative to its mean.
    """
    gram, own, width = problem.gram, problem.columns.flatten(), problem.columns.shape[1]
    added = max(ridge * gram.scale, 1e-30)
    whole = torch.equal(own, torch.arange(len(problem.weight)))
    if gram.rows is None:
        found = _inverse(*_factor(gram.matrix().clone(), added))
        return DenseInverse(found if whole else found[own][:, own], width)
    x = gram.rows if whole else gram.rows[:, own]
    inner, factor = _factor(_sum(0, gram.rows.T, 1), added)
    if factor is None or THIN * len(x) < x.shape[1]:
        return ThinInverse(x.clone(), _inverse(inner, factor), added, width)
    return DenseInverse(_sum(1 / added, torch.linalg.solve_triangular(factor, x, upper=False), -1 / added), width)


def _sum(diagonal: float, x: Tensor, factor: float) -> Tensor:
    """diagonal I + factor X'X."""
    found = x.new_zeros(x.shape[1], x.shape[1])
    found.diagonal().fill_(diagonal)
    add_symmetric(found[None], x[None], x[None], factor)
    return found


def _factor(matrix: Tensor, added: float) -> tuple[Tensor, Tensor | None]:
    """The matrix with more on its diagonal, in place, and its Cholesky factor unless rounding prevents that."""
    matrix.diagonal().add_(added)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return matrix, None if int(failed) else factor


def _inverse(matrix: Tensor, factor: Tensor | None) -> Tensor:
    """Of a symmetric matrix, in half the time where it has a Cholesky factor."""
    return torch.linalg.inv(matrix) if factor is None else torch.cholesky_inverse(factor)
