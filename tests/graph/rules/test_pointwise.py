from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("op", ["add", "mul", "maximum", "add_", "pow", "atan2"])
def test_two_tensors_unify(bench: Any, op: str) -> None:
    out = bench(op, (4,), self=bench.tensor(4), other=bench.tensor(4))
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}
    assert bench.along(out, 0) == [[1, 2, 3, 4]]


@pytest.mark.parametrize("op", ["relu", "relu_", "gelu", "sigmoid", "hardswish_", "dropout", "clone", "to"])
def test_one_tensor_passes(bench: Any, op: str) -> None:
    assert bench.along(bench(op, (4,), self=bench.tensor(4)), 0) == [[1, 2, 3, 4]]
    assert not bench.edges
    assert not bench.pinned


def test_prelu_ties_one_slope_to_each_channel(bench: Any) -> None:
    bench("prelu", (2, 4, 3), self=bench.tensor(2, 4, 3, along=[1]), weight=bench.tensor(4))
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


def test_where_joins_three(bench: Any) -> None:
    bench("where", (4,), condition=bench.tensor(4), self=bench.tensor(4), other=bench.fixed(1))
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}
