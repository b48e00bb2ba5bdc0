"""Which scores are the largest: by hand, against a sort, and the same whatever was asked before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress_plugins.ranking import Magnitudes, Ranking


def sorted_out(scores: Tensor, count: int) -> Tensor:
    """The same by sorting all."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:count]] = True
    return kept


def test_the_largest_by_hand() -> None:
    scores = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0, 1.0])
    largest = Ranking().largest
    assert largest(scores, 3).tolist() == [False, True, True, False, True, False]  # the first of three equal ones
    assert largest(scores, 1).tolist() == [False, False, False, False, True, False]
    assert largest(scores, 6).all() and largest(scores, 9).all()
    numbers = torch.full((6,), 7.0)
    assert largest(scores, 3, numbers) is numbers and numbers.tolist() == [0, 1, 1, 0, 1, 0]
    assert largest(scores.double(), 3).tolist() == largest(scores.bfloat16(), 3).tolist() == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("factor", [1.0, 1.001, 1.2, 0.3, 0.0])  # scores stay near, rise, and fall below what is near
@pytest.mark.parametrize("digits", [0, 6])
def test_a_ranking_gives_the_same_whatever_it_was_asked_before(factor: float, digits: int) -> None:
    ranking, generator = Ranking(), torch.Generator().manual_seed(0)
    scores = (20 * torch.rand(200, generator=generator)).round(decimals=digits)  # without digits many are equal
    for count in (150, 90, 90, 89, 120, 1, 20):
        assert torch.equal(ranking.largest(scores, count), sorted_out(scores, count))
        noise = torch.rand(200, generator=generator) * (0.1 if digits else 1.0)
        scores = (factor * (scores + noise)).round(decimals=digits)


@settings(deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0, 1.0004, 1.01, 3.0, float("inf")]), min_size=5,
                           max_size=5), st.integers(1, 5)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_bounds_of_any_kind(asked: list[tuple[list[float], int]]) -> None:
    ranking = Ranking()
    for scores, count in asked:
        assert torch.equal(ranking.largest(torch.tensor(scores), count), sorted_out(torch.tensor(scores), count))


def test_magnitudes_by_hand() -> None:
    weights = {"a": torch.tensor([[4.0, -3.0], [2.0, 1.0]]), "b": torch.tensor([0.5, -0.25])}
    each, all_ = Magnitudes(together=False), Magnitudes(together=True)
    for magnitudes in (each, all_):  # of all, three: b keeps one of its own
        kept = magnitudes.largest(weights, 0.5)
        assert kept["a"].tolist() == [[1, 1], [0, 0]] and kept["b"].tolist() == [1, 0]
    few = all_.largest(weights, 0.3)  # two, one of which every weight has
    assert few["a"].sum() == few["b"].sum() == 1
    assert weights["a"].tolist() == [[4, -3], [2, 1]]


def test_what_the_next_cut_would_take() -> None:
    weights = {"a": torch.tensor([[4.0, -3.0], [2.0, 1.0]]), "b": torch.tensor([0.5, -0.25])}
    each, all_ = Magnitudes(together=False), Magnitudes(together=True)
    for magnitudes in (each, all_):
        magnitudes.largest(weights, 1.0)
        assert magnitudes.next_cut(0.5) == pytest.approx(3.25 / 10.75)
    kept = each.largest(weights, 0.5)
    assert kept["a"].tolist() == [[1, 1], [0, 0]] and each.next_cut(0.3) == pytest.approx(3 / 7.5)
    all_.largest({"a": torch.zeros(4)}, 0.5)
    assert all_.next_cut(0.3) == 0
