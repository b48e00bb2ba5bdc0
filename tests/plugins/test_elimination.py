"""The optimal brain surgeon against least squares solved from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from compress.plugin import Gram, Problem
from compress_plugins import elimination
from compress_plugins.elimination import Elimination, order

RIDGE = 1e-12


def problem(x: Tensor, weight: Tensor, columns: Sequence[Sequence[int]]) -> Problem:
    units = torch.arange(len(columns))
    return Problem("layer", Gram(x.T @ x), weight, units, torch.tensor(columns))


def rise(x: Tensor, weight: Tensor, gone: Sequence[int]) -> float:
    """The squared error that is left when the columns go and the others are solved for, by least squares."""
    kept = [i for i in range(x.shape[1]) if i not in gone]
    y = x @ weight
    solution = torch.linalg.lstsq(x[:, kept], y).solution
    return float((x[:, kept] @ solution - y).square().sum())


@pytest.fixture(params=[0, 1, 2])
def drawn(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Correlated inputs (50, 6) and a weight (6, 3)."""
    generator = torch.Generator().manual_seed(request.param)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    mixed = x @ torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return mixed, torch.randn(6, 3, generator=generator, dtype=torch.float64)


def test_three_inputs_by_hand() -> None:
    """Inputs a, b and c = a + b/10 + e, orthogonal a, b, e of length 1, and the output 2 a + 3 b."""
    a, b = torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0, 1.0, 0], dtype=torch.float64)
    x = torch.stack([a, b, a + 0.1 * b + torch.tensor([0, 0, 1.0])], 1)
    weight = torch.tensor([[2.0], [3.0], [0.0]], dtype=torch.float64)
    parts = Elimination(problem(x, weight, [[0], [1], [2]]), RIDGE)
    # Without a, what c has beside b is a + e of squared length 2, and 2 a has 2 in common with it: 4 - 2^2 / 2.
    # Without b, what c has beside a is b/10 + e of squared length 1.01, and 3 b has 0.3 in common: 9 - 0.3^2 / 1.01.
    expected = torch.tensor([2.0, 9 - 0.09 / 1.01, 0.0], dtype=torch.float64)
    torch.testing.assert_close(parts.costs(3), expected)
    parts.remove(2)
    torch.testing.assert_close(parts.costs(3), torch.tensor([4.0, 9.0, 0.0], dtype=torch.float64))
    parts.remove(0)
    torch.testing.assert_close(parts.costs(3), torch.tensor([0.0, 9.0, 0.0], dtype=torch.float64))


def test_the_cost_of_a_unit_is_the_rise_of_the_error(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    blocks = [[0, 3], [1, 4], [2, 5]]
    parts = Elimination(problem(x, weight, blocks), RIDGE)
    expected = [rise(x, weight, block) for block in blocks]
    torch.testing.assert_close(parts.costs(3), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)
    first = int(torch.tensor(expected).argmin())
    assert first == min(range(3), key=lambda u: rise(x, weight, blocks[u]))  # brute force
    total = float(parts.costs(3)[first])
    parts.remove(first)
    for unit in {0, 1, 2} - {first}:
        both = total + float(parts.costs(3)[unit])
        assert both == pytest.approx(rise(x, weight, [*blocks[first], *blocks[unit]]), rel=1e-6)


def test_what_is_left_is_refitted(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    parts = Elimination(problem(x, weight, [[i] for i in range(6)]), RIDGE)
    parts.remove(4)
    parts.remove(1)
    refitted = torch.linalg.lstsq(x[:, [0, 2, 3, 5]], x @ weight).solution
    fresh = Elimination(problem(x[:, [0, 2, 3, 5]], refitted, [[i] for i in range(4)]), RIDGE)
    costs = parts.costs(6)
    torch.testing.assert_close(costs[[0, 2, 3, 5]], fresh.costs(4), rtol=1e-6, atol=1e-8)
    assert costs[[1, 4]].tolist() == [0, 0]


def test_one_removal_is_the_best_of_all(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    found = order([problem(x, weight, [[i] for i in range(6)])], 6, [torch.arange(6)], [1], RIDGE)
    assert int(found.argmin()) == min(range(6), key=lambda i: rise(x, weight, [i]))
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4, 5]


def test_readers_add_up(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    y, other = x.flip(0).cos(), weight.flip(0)
    found = order(
        [problem(a, b, [[i] for i in range(6)]) for a, b in ((x, weight), (y, other))],
        *(6, [torch.arange(6)], [1], RIDGE),
    )

    def cost(unit: int) -> float:
        return sum(rise(a, b, [unit]) / float((a @ b).square().sum()) for a, b in ((x, weight), (y, other)))

    assert int(found.argmin()) == min(range(6), key=cost)


def test_cells_lose_in_turns(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    weight = weight * torch.tensor([1e-3, 1e-3, 1e-3, 1, 1, 1], dtype=torch.float64)[:, None]
    cells = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]
    rank = order([problem(x, weight, [[i] for i in range(6)])], 6, cells, [2, 2], RIDGE)
    gone = rank.argsort().tolist()[:4]
    for pair in (gone[:2], gone[2:]):
        assert {unit // 3 for unit in pair} == {0, 1}


def test_a_layer_without_output_has_no_say() -> None:
    x = torch.randn(9, 2, dtype=torch.float64)
    silent, loud = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([[5.0], [0.0]], dtype=torch.float64)
    found = order([problem(x, w, [[0], [1]]) for w in (silent, loud)], 2, [torch.arange(2)], [1], RIDGE)
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("outputs", [2, 30])
@pytest.mark.parametrize("rows", [5, 14, 31])
def test_rows_and_their_products_are_one_problem(
    rows: int, outputs: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Centred inputs, some of nobody; thin or not by either side; with and without products that are carried out."""
    generator = torch.Generator().manual_seed(rows + outputs + width)
    x = torch.randn(rows, 32, generator=generator, dtype=torch.float64)
    x -= x.mean(0)
    weight = torch.randn(32, outputs, generator=generator, dtype=torch.float64)
    columns = torch.randperm(32, generator=generator)[: 24 // width * width].reshape(-1, width)
    units = torch.randperm(len(columns) + 2, generator=generator)[: len(columns)]  # two more are not read
    count = len(units) + 2
    monkeypatch.setattr(elimination, "PUT_OFF", 4 * width)
    kept, multiplied = (Problem("layer", Gram(g), weight, units, columns) for g in (x, x.T @ x))
    assert kept.gram.rows is not None
    assert multiplied.gram.rows is None
    assert kept.energy == pytest.approx(multiplied.energy)
    parts = [Elimination(each, 1e-4) for each in (kept, multiplied)]
    for unit in range(count - 4):
        costs = [part.costs(count) for part in parts]
        torch.testing.assert_close(*costs, rtol=1e-8, atol=1e-8)
        parts[0].remove(unit, costs[0].roll(1))  # a bad guess of what may go next
        parts[1].remove(unit)
    cells = [torch.arange(0, count, 2), torch.arange(1, count, 2)]
    orders = [order([each], count, cells, [count // 3] * 2, 1e-4).tolist() for each in (kept, multiplied)]
    assert orders[0] == orders[1]


def test_every_unit_may_go() -> None:
    x, weight = torch.randn(9, 4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    found = order([problem(x, weight, [[i] for i in range(4)])], 4, [torch.arange(4)], [4], RIDGE)
    assert sorted(found.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("put_off", [1, 5, 1000])
def test_products_that_wait_change_nothing(put_off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 units of two inputs in any places, beside inputs of nobody; every step against a refit from scratch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 30, generator=generator, dtype=torch.float64)
    weight = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    blocks = torch.randperm(30, generator=generator)[:24].reshape(12, 2)
    monkeypatch.setattr(elimination, "PUT_OFF", put_off)
    parts = Elimination(problem(x, weight, blocks.tolist()), RIDGE)
    gone: list[int] = []
    lost = 0.0
    for unit in (7, 0, 11, 3, 4, 9, 1):
        lost += float(parts.costs(12)[unit])
        gone += blocks[unit].tolist()
        parts.remove(unit)
        assert lost == pytest.approx(rise(x, weight, gone), rel=1e-6)
