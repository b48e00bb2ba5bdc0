"""Symmetric matrices of which single rows are read while inputs are taken out: whole, or as products of thin ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from compress.plugin import Problem, add_symmetric

THIN = 3  # a factor with more columns for each row than this is not multiplied out
AHEAD = 72  # rows of a product that are computed at once


class Symmetric(ABC):
    """A matrix (inputs, inputs), float64, that belongs to the inputs of a layer."""

    @abstractmethod
    def blocks(self, width: int) -> Tensor:
        """(inputs / width, width, width): those on the diagonal."""

    @abstractmethod
    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        """(own, inputs), not to be written to; ``soon`` are others of the same number that may be read next."""

    @abstractmethod
    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """Take inputs out, in groups that follow one another; what the matrix has at them is undefined from then on.

        Args:
            gone: (g,) - their places, as they went.
            solved: (g, inputs) - for each group (H^-1_gg)^-1 H^-1_g, of the inverse H^-1 that there was before it.
            other: (g, inputs) - the other factor of what the matrix loses.
        """

    @abstractmethod
    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """Put the inputs at ``last`` into ``holes``, and forget all from ``left`` on."""


class Dense(Symmetric):
    """The inverse of H; it loses ``solved' other``, where ``other`` are its rows."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def blocks(self, width: int) -> Tensor:
        parts = self._matrix.unflatten(1, (-1, width)).unflatten(0, (-1, width))
        return parts.diagonal(dim1=0, dim2=2).movedim(-1, 0).contiguous()

    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        return self._matrix[own]

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        add_symmetric(self._matrix[None], solved[None], other[None], -1)

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        self._matrix[holes] = self._matrix[last]
        self._matrix[:, holes] = self._matrix[:, last]
        self._matrix = self._matrix[:left, :left]


class Products(Dense):
    """The products of a weight's rows; refitting the weight, they lose ``solved' other + other' solved``."""

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        super().down_date(gone, torch.cat([solved, other]), torch.cat([other, solved]))


class Thin(Symmetric):
    """A matrix whose rows are computed when asked for, many at once, as 72 take little longer than 9."""

    def __init__(self) -> None:
        self._known: dict[int, Tensor] = {}

    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        width = own.stop - own.start
        if own.start not in self._known:
            unknown = (s for s in (own, *soon) if s.start not in self._known)
            wanted = list(islice(unknown, max(AHEAD // width, 1)))
            found = self._computed(wanted).split(width)
            self._known.update((s.start, rows) for s, rows in zip(wanted, found, strict=True))
        return self._known[own.start]

    @abstractmethod
    def _computed(self, wanted: Sequence[slice]) -> Tensor: ...


class ThinProducts(Thin):
    """The products of the rows of a weight W, (inputs, outputs), which is refitted."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight

    def blocks(self, width: int) -> Tensor:
        rows = self._weight.unflatten(0, (-1, width))
        return rows @ rows.mT

    def _computed(self, wanted: Sequence[slice]) -> Tensor:
        return torch.cat([self._weight[own] for own in wanted]) @ self._weight.T

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """W loses ``solved' w``; w are the rows that go, less what those before them took from them."""
        self._known.clear()
        taken = solved[:, gone].T  # below the diagonal; 1 on it, and 0 above it, where nothing was left
        went = torch.linalg.solve_triangular(taken, self._weight[gone], upper=False, unitriangular=True)
        self._weight.addmm_(solved.T, went, alpha=-1)

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        self._weight[holes] = self._weight[last]
        self._weight = self._weight[:left]


class ThinInverse(Thin):
    """The inverse of H = X'X + s I as (I - X' A X) / s, where A is the inverse of X X' + s I (Woodbury).

    The subtraction loses nothing that matters in float64: its terms are up to 1, and its result is at least s / |H|.
    With s = 1e-4 of the mean diagonal |H| / s is at most 1e4 times the number of inputs, so that half of the 16 digits
    remain at worst; inverting H itself keeps no more, as |H| / s is its condition.

    Args:
        x: (rows, inputs).
        inner: (rows, rows) - A.
        ridge: s.
    """

    def __init__(self, x: Tensor, inner: Tensor, ridge: float) -> None:
        super().__init__()
        self._x, self._inner, self._ridge = x, inner, ridge

    def blocks(self, width: int) -> Tensor:
        x, solved = (t.unflatten(1, (-1, width)).movedim(1, 0) for t in (self._x, self._inner @ self._x))
        return (torch.eye(width, dtype=x.dtype) - x.mT @ solved) / self._ridge

    def _computed(self, wanted: Sequence[slice]) -> Tensor:
        x = torch.cat([self._x[:, own] for own in wanted], 1)
        found = (x.T @ self._inner).mul_(-1 / self._ridge) @ self._x
        for rows, own in zip(found.split(wanted[0].stop - wanted[0].start), wanted, strict=True):
            rows[:, own].diagonal().add_(1 / self._ridge)
        return found

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """X X' loses the products of the columns that go, and A changes by Woodbury's formula again."""
        self._known.clear()
        x = self._x[:, gone]
        side = self._inner @ x
        rest = torch.eye(len(gone), dtype=x.dtype) - x.T @ side
        self._inner.addmm_(side, torch.linalg.solve(rest, side.T))

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        self._x[:, holes] = self._x[:, last]
        self._x = self._x[:, :left]


def products(problem: Problem) -> Symmetric:
    """The products of the rows of a layer's weight, for the inputs that belong to units, in the order of the units."""
    weight = problem.weight[problem.columns.flatten()]
    return ThinProducts(weight) if THIN * weight.shape[1] < len(weight) else Products(_sum(0, weight.T, 1))


def inverse(problem: Problem, ridge: float) -> Symmetric:
    """The inverse of the second moments of all inputs of a layer, for those that belong to units, in the same order.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to the moments' diagonal, relative to its mean.
    """
    gram, own = problem.gram, problem.columns.flatten()
    added = max(ridge * gram.scale, 1e-30)
    whole = torch.equal(own, torch.arange(len(problem.weight)))
    if gram.rows is None:
        found = _inverse(*_factor(gram.matrix().clone(), added))
        return Dense(found if whole else found[own][:, own])
    x = gram.rows if whole else gram.rows[:, own]
    inner, factor = _factor(_sum(0, gram.rows.T, 1), added)
    if factor is None or THIN * len(x) < x.shape[1]:
        return ThinInverse(x.clone(), _inverse(inner, factor), added)
    return Dense(_sum(1 / added, torch.linalg.solve_triangular(factor, x, upper=False), -1 / added))


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
