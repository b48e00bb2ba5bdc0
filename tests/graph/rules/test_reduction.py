from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("op", ["sum", "mean", "linalg_vector_norm"])
def test_sums_end_the_labels_of_their_dim(bench: Any, op: str) -> None:
    x = bench.tensor(3, 4)
    out = bench(op, (4,), self=x, dim=[0])
    assert bench.along(out, 0) == [[4, 5, 6, 7]]
    assert bench.along(bench(op, (3, 1), self=x, dim=[1]), 0) == [[1, 2, 3]]
    assert bench(op, (), self=x).factors == ()
    assert not bench.pinned


@pytest.mark.parametrize("op", ["argmax", "prod", "logsumexp"])
def test_what_compares_pins_its_dim_only(bench: Any, op: str) -> None:
    out = bench(op, (3,), self=bench.tensor(3, 4), dim=-1)
    assert bench.along(out, 0) == [[1, 2, 3]]
    assert bench.pinned == [4, 5, 6, 7]


@pytest.mark.parametrize("op", ["amax", "amin", "std", "var"])
def test_statistics_are_taken_over_what_is_kept(bench: Any, op: str) -> None:
    out = bench(op, (3,), self=bench.tensor(3, 4), dim=-1)
    assert bench.along(out, 0) == [[1, 2, 3]]
    assert not bench.pinned


def test_variance_over_one_less_keeps_one_of_each_half(bench: Any) -> None:
    bench("var", (3,), self=bench.tensor(3, 4), dim=[1], correction=0)
    assert not bench.relations.pieces
    bench("var", (3,), self=bench.tensor(3, 4), dim=[1])
    assert [p.tolist() for p in bench.relations.pieces] == [[11, 12], [13, 14]]


def test_running_sum_keeps_its_labels(bench: Any) -> None:
    out = bench("cumsum", (3, 4), self=bench.tensor(3, 4), dim=1)
    assert bench.along(out, 1) == [[4, 5, 6, 7]]
    assert not bench.pinned


def test_maximum_with_indices_gives_two_results(bench: Any) -> None:
    values, indices = bench("max", (3,), (3,), self=bench.tensor(3, 4), dim=1)
    assert bench.along(values, 0) == bench.along(indices, 0) == [[1, 2, 3]]


def test_maximum_of_two_tensors_is_pointwise(bench: Any) -> None:
    bench("max", (4,), self=bench.tensor(4), other=bench.tensor(4))
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "sort", "argsort"])
def test_what_orders_or_normalises_pins_its_dim_only(bench: Any, op: str) -> None:
    out = bench(op, (3, 4), self=bench.tensor(3, 4), dim=1)
    assert bench.along(out, 0) == [[1, 2, 3]]
    assert out.along(1) == []
    assert bench.pinned == [4, 5, 6, 7]
