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
    parts.remove(torch.tensor([2]))
    torch.testing.assert_close(parts.costs(3), torch.tensor([4.0, 9.0, 0.0], dtype=torch.float64))
    parts.remove(torch.tensor([0]))
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
    parts.remove(torch.tensor([first]))
    for unit in {0, 1, 2} - {first}:
        both = total + float(parts.costs(3)[unit])
        assert both == pytest.approx(rise(x, weight, [*blocks[first], *blocks[unit]]), rel=1e-6)


def test_what_is_left_is_refitted(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    parts = Elimination(problem(x, weight, [[i] for i in range(6)]), RIDGE)
    parts.remove(torch.tensor([4]))
    parts.remove(torch.tensor([1]))
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
    monkeypatch.setattr(elimination, "LIKELY", 4)
    kept, multiplied = (Problem("layer", Gram(g), weight, units, columns) for g in (x, x.T @ x))
    assert kept.gram.rows is not None
    assert multiplied.gram.rows is None
    assert kept.energy == pytest.approx(multiplied.energy)
    parts = [Elimination(each, 1e-4) for each in (kept, multiplied)]
    for unit in range(count - 4):
        costs = [part.costs(count) for part in parts]
        torch.testing.assert_close(*costs, rtol=1e-8, atol=1e-8)
        for part in parts:
            part.remove(torch.tensor([unit]))
    cells = [torch.arange(0, count, 2), torch.arange(1, count, 2)]
    orders = [order([each], count, cells, [count // 3] * 2, 1e-4).tolist() for each in (kept, multiplied)]
    assert orders[0] == orders[1]


def test_every_unit_may_go() -> None:
    x, weight = torch.randn(9, 4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    found = order([problem(x, weight, [[i] for i in range(4)])], 4, [torch.arange(4)], [4], RIDGE)
    assert sorted(found.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("together", [1, 3, 7])
def test_units_that_go_together(together: int) -> None:
    """12 units of two inputs in any places, beside inputs of nobody; every step against a refit from scratch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 30, generator=generator, dtype=torch.float64)
    weight = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    blocks = torch.randperm(30, generator=generator)[:24].reshape(12, 2)
    parts, gone = Elimination(problem(x, weight, blocks.tolist()), RIDGE), list[int]()
    for units in torch.tensor([7, 0, 11, 3, 4, 9, 1]).split(together):
        parts.remove(units)
        gone += blocks[units].flatten().tolist()
    lost = rise(x, weight, gone)
    for unit in (2, 5, 6, 8, 10):
        more = rise(x, weight, gone + blocks[unit].tolist()) - lost
        assert float(parts.costs(12)[unit]) == pytest.approx(more, rel=1e-6)


def greedy(problems: Sequence[Problem], size: int, count: int) -> list[int]:
    """Backward elimination as it is defined: the cost of every unit from scratch for each that goes."""
    gone = list[int]()
    for _ in range(count):
        costs = [
            sum(rise_of(p, [*gone, unit]) / p.energy for p in problems) if unit not in gone else torch.inf
            for unit in range(size)
        ]
        gone.append(min(range(size), key=costs.__getitem__))
    return gone


def rise_of(part: Problem, units: Sequence[int]) -> float:
    """The squared error without the units, the ridge included."""
    lost = part.columns[torch.isin(part.units, torch.tensor(units))].flatten()
    gram = part.gram.matrix() + 1e-3 * part.gram.scale * torch.eye(len(part.weight), dtype=torch.float64)
    inverse = gram.inverse()[lost][:, lost]
    return float((part.weight[lost] * torch.linalg.solve(inverse, part.weight[lost])).sum())


@pytest.mark.parametrize("likely", [2, 5, 96])
@pytest.mark.parametrize("widths", [(1,), (2,), (1, 2)])
def test_the_order_is_that_of_one_by_one(likely: int, widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of one and two inputs for a unit, each of other units; panels that are too small for what goes."""
    monkeypatch.setattr(elimination, "LIKELY", likely)
    monkeypatch.setattr(elimination, "SLACK", 1)
    parts = []
    for width in widths:
        x = torch.randn(40, 14 * width + 1, dtype=torch.float64) @ torch.randn(14 * width + 1, 14 * width + 1).double()
        units = torch.randperm(16)[:14]
        columns = torch.randperm(14 * width + 1)[: 14 * width].reshape(14, width)
        parts.append(Problem("layer", Gram(x.T @ x), torch.randn(14 * width + 1, 3).double(), units, columns))
    found = order(parts, 16, [torch.arange(16)], [9], 1e-3)
    gone, expected = found.argsort().tolist()[:9], greedy(parts, 16, 9)
    if likely > 16:
        assert gone == expected
    lost, least = (sum(rise_of(p, units) / p.energy for p in parts) for units in (gone, expected))
    assert lost <= 1.1 * least
