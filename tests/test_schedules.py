from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.schedules import annealed

WEIGHTS = 1200 * 1200 + 1200 * 10  # behind the first layer of 784-1200-1200-10


def test_counts_of_a_fifth() -> None:
    found = [annealed(i, 25, WEIGHTS, WEIGHTS // 5, 10) for i in range(15)]
    assert found[:6] == [1_452_000, 884_106, 665_686, 550_051, 478_468, 429_792]
    assert found[12:] == [294_783, 290_400, 290_400]


@pytest.mark.parametrize(("share", "first"), [(0.4, 1_026_080), (0.6, 1_168_053), (0.8, 1_310_026)])
def test_first_step_of_other_shares(share: float, first: int) -> None:
    assert annealed(1, 25, WEIGHTS, int(share * WEIGHTS), 10) == first


def test_mu_zero_is_a_straight_line() -> None:
    assert [annealed(i, 8, 100, 20, 0) for i in range(6)] == [100, 80, 60, 40, 20, 20]


def test_whole_results_are_not_truncated() -> None:
    # 55 * 3 / 11 = 15, and 3 / 11 * 55 is 14.999... in floats
    assert int(3 / 11 * 55) == 14
    assert annealed(2, 7, 55, 0, 1) == 15


@given(
    total=st.integers(1, 60),
    start=st.integers(0, 10_000),
    kept=st.floats(0, 1),
    mu=st.floats(0, 300),
)
def test_formula_ends_and_monotone(total: int, start: int, kept: float, mu: float) -> None:
    end = int(kept * start)
    counts = [annealed(i, total, start, end, mu) for i in range(total + 1)]
    assert counts[0] == start
    assert all(n == end for i, n in enumerate(counts) if 2 * i >= total)
    assert counts == sorted(counts, reverse=True)
    for i, count in enumerate(counts):
        exact = end + (start - end) * max(0, (total - 2 * i) / (2 * i * mu + total))
        assert math.floor(exact - 1e-6) <= count <= exact + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 5, 3, 4, 1), "end"), ((0, 0, 4, 3, 1), "total"), ((-1, 5, 4, 3, 1), "step"), ((0, 5, 4, 3, -1), "mu")],
)
def test_out_of_range(arguments: tuple[int, int, int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        annealed(*arguments)
