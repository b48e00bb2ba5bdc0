"""Symmetric matrices of which single rows are read while inputs are taken out, as themselves or as thin factors."""

from __future__ import annotations

from itertools import islice
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from compress.plugin import Problem, add_symmetric

AHEAD = 36
THIN = 3  # a factor with more than so many columns for each row stays one: slower to read from, but never squared


class Symmetric(Protocol):
    """A matrix (inputs, inputs), float64, that belongs to a set of inputs.

    Taking out inputs g changes it by a product of thin matrices. ``solved`` is (H^-1_gg)^-1 H^-1_g:, (g, inputs), or,
    where inputs went one after another, one such row for each, of the inverse as it was then.
    """

    def blocks(self, width: int) -> Tensor:
        """(inputs / width, width, width): those on the diagonal."""
        raise NotImplementedError

    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        """(own, inputs), not to be written to; ``soon`` are rows, as many at a time, that may be read next."""
        raise NotImplementedError

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """Take out inputs; their rows and columns are left as they come.

        Args:
            gone: (g,) - their places.
            solved: (g, inputs) - see above.
            other: (g, inputs) - the other factor of the change.
        """
        raise NotImplementedError

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """Put the inputs at ``last`` into ``holes`` and keep the first ``left``."""
        raise NotImplementedError


class Dense:
    """A matrix that loses ``solved' other``: the inverse of H, where ``other`` is its rows."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def blocks(self, width: int) -> Tensor:
        """See :class:`Symmetric`."""
        count = len(self._matrix) // width
        found = self._matrix.unflatten(1, (count, width)).unflatten(0, (count, width))
        return found.diagonal(dim1=0, dim2=2).movedim(-1, 0).contiguous()

    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        """See :class:`Symmetric`."""
        return self._matrix[own]

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """See :class:`Symmetric`."""
        add_symmetric(self._matrix[None], solved[None], other[None], -1)

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """See :class:`Symmetric`."""
        self._matrix[holes] = self._matrix[last]
        self._matrix[:, holes] = self._matrix[:, last]
        self._matrix = self._matrix[:left, :left]


class Products(Dense):
    """A matrix that loses ``solved' other + other' solved``: the products of the rows of a weight that is refitted."""

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """See :class:`Symmetric`."""
        super().down_date(gone, torch.cat([solved, other]), torch.cat([other, solved]))


class Thin(ABC):
    """A matrix whose rows are computed, several at once: a product with 36 columns takes little longer than with 9."""

    def __init__(self) -> None:
        self._known: dict[int, Tensor] = {}

    def rows(self, own: slice, soon: Iterable[slice]) -> Tensor:
        """See :class:`Symmetric`."""
        if own.start not in self._known:
            room = max(AHEAD // (own.stop - own.start), 1)
            wanted = {s.start: s for s in islice((s for s in (own, *soon) if s.start not in self._known), room)}
            found = self._computed(list(wanted.values()))
            self._known.update(zip(wanted, found.split(own.stop - own.start), strict=True))
        return self._known[own.start]

    @abstractmethod
    def _computed(self, rows: Sequence[slice]) -> Tensor: ...


class ThinProducts(Thin):
    """Products of rows as W W'; refitted, W loses ``solved' w``, where w are the rows that go, each as it was then."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight.clone()

    def blocks(self, width: int) -> Tensor:
        """See :class:`Symmetric`."""
        rows = self._weight.unflatten(0, (-1, width))
        return rows @ rows.mT

    def _computed(self, rows: Sequence[slice]) -> Tensor:
        return torch.cat([self._weight[own] for own in rows]) @ self._weight.T

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """See :class:`Symmetric`; what earlier ones changed in w is below the diagonal of ``solved``, transposed."""
        self._known.clear()
        mixed = solved[:, gone].T
        went = torch.linalg.solve_triangular(mixed, self._weight[gone], upper=False, unitriangular=True)
        self._weight.addmm_(solved.T, went, alpha=-1)

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """See :class:`Symmetric`."""
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
        self._x, self._inner, self._ridge = x.clone(), inner, ridge

    def blocks(self, width: int) -> Tensor:
        """See :class:`Symmetric`."""
        x, solved = (t.unflatten(1, (-1, width)).movedim(1, 0) for t in (self._x, self._inner @ self._x))
        return (torch.eye(width, dtype=x.dtype) - x.mT @ solved) / self._ridge

    def _computed(self, rows: Sequence[slice]) -> Tensor:
        x = torch.cat([self._x[:, own] for own in rows], 1)
        found = (x.T @ self._inner).mul_(-1 / self._ridge) @ self._x
        for part, own in zip(found.split(rows[0].stop - rows[0].start), rows, strict=True):
            part[:, own].diagonal().add_(1 / self._ridge)
        return found

    def down_date(self, gone: Tensor, solved: Tensor, other: Tensor) -> None:
        """See :class:`Symmetric`; only A changes, by Woodbury's formula again."""
        self._known.clear()
        x = self._x[:, gone]
        side = self._inner @ x
        lost = torch.eye(len(gone), dtype=x.dtype) - x.T @ side
        self._inner.addmm_(side, torch.linalg.solve(lost, side.T))

    def move(self, holes: Tensor, last: Tensor, left: int) -> None:
        """See :class:`Symmetric`."""
        self._x[:, holes] = self._x[:, last]
        self._x = self._x[:, :left]


def products(problem: Problem) -> Symmetric:
    """Of the rows of a weight, for the inputs that belong to units, in the order of its units."""
    weight = problem.weight[problem.columns.flatten()]
    return ThinProducts(weight) if THIN * weight.shape[1] < len(weight) else Products(_added(0, weight.T, 1))


def inverse(problem: Problem, ridge: float) -> Symmetric:
    """Of the regularised second moments of a layer's inputs, for those of them that belong to units, in the same order.

    Args:
        problem: What a layer computes from the units.
        ridge: Added to the diagonal, relative to its mean.
    """
    gram, own = problem.gram, problem.columns.flatten()
    added = max(ridge * gram.scale, 1e-30)
    whole = torch.equal(own, torch.arange(problem.weight.shape[0]))
    if gram.rows is None:
        found = _inverse(*_factor(gram.matrix(), added))
        return Dense(found if whole else found[own][:, own])
    x = gram.rows if whole else gram.rows[:, own]
    matrix, factor = _factor(_added(0, gram.rows.T, 1), added)
    if factor is None or THIN * len(x) < x.shape[1]:
        return ThinInverse(x, _inverse(matrix, factor), added)
    solved = torch.linalg.solve_triangular(factor, x, upper=False)
    return Dense(_added(1 / added, solved, -1 / added))


def _added(diagonal: float, x: Tensor, factor: float) -> Tensor:
    """diagonal I + factor X'X."""
    found = x.new_zeros(x.shape[1], x.shape[1])
    found.diagonal().fill_(diagonal)
    add_symmetric(found[None], x[None], x[None], factor)
    return found


def _factor(matrix: Tensor, added: float) -> tuple[Tensor, Tensor | None]:
    """The matrix with ``added`` on its diagonal, and its Cholesky factor; None if it is not positive in floating point."""
    matrix = matrix.clone()
    matrix.diagonal().add_(added)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return matrix, None if int(failed) else factor


def _inverse(matrix: Tensor, factor: Tensor | None) -> Tensor:
    """Of a symmetric matrix, in half the time where it has a Cholesky factor."""
    return torch.linalg.inv(matrix) if factor is None else torch.cholesky_inverse(factor)
