"""Rows and diagonal blocks against matrices computed from scratch, before and after inputs have gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.plugin import Gram, Problem
from compress_plugins import symmetric
from compress_plugins.symmetric import (
    DenseInverse,
    DenseProducts,
    Inverse,
    Symmetric,
    ThinInverse,
    ThinProducts,
    diagonal_blocks,
    inverse,
    products,
)

RIDGE, WIDTH, LEFT = 1e-2, 2, 8


@pytest.fixture
def problem() -> Problem:
    """8 rows of 12 inputs, ten of which belong to five units."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((8, 12), (12, 3)))
    columns = torch.randperm(12, generator=generator)[:10].reshape(5, 2)
    return Problem("layer", Gram(x), weight, torch.arange(5), columns)


def regular(problem: Problem) -> Tensor:
    """The moments of all inputs, those of units in front."""
    own = problem.columns.flatten().tolist()
    order = own + [i for i in range(12) if i not in own]
    found: Tensor = (problem.xx + RIDGE * problem.gram.scale * torch.eye(12, dtype=torch.float64))[order][:, order]
    return found


def check(matrix: Symmetric, expected: Tensor) -> None:
    """Every part that may be asked for; ``expected`` are the rows of the units in their order."""
    units = torch.arange(len(expected) // WIDTH)
    torch.testing.assert_close(matrix.at(units), expected)
    some = units[[2, 0]]
    own = matrix.inputs(some)
    torch.testing.assert_close(matrix.at(some), expected[own][:, own])
    if isinstance(matrix, Inverse):
        torch.testing.assert_close(matrix.rows(some.flip(0)), expected[own.unflatten(0, (2, -1)).flip(0).flatten()])
        torch.testing.assert_close(matrix.rows(units), expected)
    torch.testing.assert_close(matrix.blocks(), diagonal_blocks(expected, WIDTH))


@pytest.mark.parametrize(("thin", "kinds"), [(0, (ThinInverse, ThinProducts)), (100, (DenseInverse, DenseProducts))])
@pytest.mark.parametrize("squared", [False, True])
def test_as_computed_from_scratch(
    problem: Problem, thin: float, kinds: tuple[type, type], squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symmetric, "THIN", thin)
    moments, weight = regular(problem), problem.weight[problem.columns.flatten()]
    if squared:
        problem = Problem("layer", Gram(problem.xx), problem.weight, problem.units, problem.columns)
    found = inverse(problem, RIDGE), products(problem)
    assert [type(each) for each in found] == [DenseInverse if squared else kinds[0], kinds[1]]
    inverted = moments.inverse()
    check(found[0], inverted[:10, :10])
    check(found[1], weight @ weight.T)

    # The second and the fourth unit go together; the last takes the place of the second
    gone = torch.tensor([1, 3])
    side = found[0].rows(gone)
    own = [2, 3, 6, 7]
    solved = side[:, own].inverse() @ side
    for matrix in found:
        matrix.down_date(gone, side, solved)
        matrix.move(torch.tensor([1]), torch.tensor([4]), 3)
    kept = [0, 1, 8, 9, 4, 5]
    rest = [*kept, 10, 11]
    check(found[0], moments[rest][:, rest].inverse()[:6, :6])
    refitted = (weight - solved.T @ weight[own])[kept]
    check(found[1], refitted @ refitted.T)


def test_moments_that_rounding_left_indefinite() -> None:
    moments = torch.diag(torch.tensor([1.0, 2.0, -1e-6], dtype=torch.float64))
    one = Problem(
        "layer", Gram(moments), torch.ones(3, 1, dtype=torch.float64), torch.arange(3), torch.arange(3)[:, None]
    )
    expected = torch.tensor([1.0, 0.5, -1e6], dtype=torch.float64)
    torch.testing.assert_close(inverse(one, 1e-15).blocks().flatten(), expected)
