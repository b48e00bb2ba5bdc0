"""Rows and diagonal blocks against matrices computed from scratch, before and after inputs have gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.plugin import Gram, Problem
from compress_plugins import symmetric
from compress_plugins.symmetric import Dense, Products, Symmetric, ThinInverse, ThinProducts, inverse, products

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
    expected = expected[: len(expected) // WIDTH * WIDTH]
    for start in range(0, len(expected), WIDTH):
        own = slice(start, start + WIDTH)
        torch.testing.assert_close(matrix.rows(own, [slice(0, WIDTH)]), expected[own])
        torch.testing.assert_close(matrix.blocks(WIDTH)[start // WIDTH], expected[own, own])


@pytest.mark.parametrize(("thin", "kinds"), [(0, (ThinInverse, ThinProducts)), (100, (Dense, Products))])
@pytest.mark.parametrize("squared", [False, True])
def test_as_computed_from_scratch(
    problem: Problem, thin: float, kinds: tuple[type, type], squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symmetric, "THIN", thin)
    moments, weight = regular(problem), problem.weight[problem.columns.flatten()]
    if squared:
        problem = Problem("layer", Gram(problem.xx), problem.weight, problem.units, problem.columns)
    found = inverse(problem, RIDGE), products(problem)
    assert [type(each) for each in found] == [Dense if squared else kinds[0], kinds[1]]
    inverted = moments.inverse()
    check(found[0], inverted[:10, :10])
    check(found[1], weight @ weight.T)

    # The second unit goes, then the fourth; the last takes the place of the second
    gone, sides, solved, across = torch.tensor([2, 3, 6, 7]), list[Tensor](), list[Tensor](), list[Tensor]()
    before, products_before = inverted[:10, :10], weight @ weight.T
    for own in (slice(2, 4), slice(6, 8)):
        side, row = before[own], products_before[own]
        quotient = side[:, own].inverse() @ side
        sides.append(side)
        solved.append(quotient)
        across.append(row - row[:, own] @ quotient / 2)
        before, weight = before - side.T @ quotient, weight - quotient.T @ weight[own]
        products_before = weight @ weight.T
    for matrix, other in zip(found, (sides, across), strict=True):
        matrix.down_date(gone, torch.cat(solved), torch.cat(other))
        matrix.move(torch.tensor([2, 3]), torch.tensor([8, 9]), 6)
    kept = [0, 1, 8, 9, 4, 5]
    rest = [*kept, 10, 11]
    check(found[0], moments[rest][:, rest].inverse()[:6, :6])
    check(found[1], (weight @ weight.T)[kept][:, kept])


def test_moments_that_rounding_left_indefinite() -> None:
    moments = torch.diag(torch.tensor([1.0, 2.0, -1e-6], dtype=torch.float64))
    one = Problem(
        "layer", Gram(moments), torch.ones(3, 1, dtype=torch.float64), torch.arange(3), torch.arange(3)[:, None]
    )
    expected = torch.tensor([1.0, 0.5, -1e6], dtype=torch.float64)
    torch.testing.assert_close(inverse(one, 1e-15).blocks(1).flatten(), expected)
