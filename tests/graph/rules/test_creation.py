from __future__ import annotations

from typing import Any


def test_constant_tensors_fit_any_size(bench: Any) -> None:
    out = bench("zeros", (1, 4), size=[1, 4])
    assert bench.along(out, 1) == [[1, 2, 3, 4]]
    assert bench.rewrite([1 + 4, 3 + 4], "zeros", (1, 4), size=[1, 4]) == {"size": [1, 2]}


def test_positions_carry_no_labels(bench: Any) -> None:
    assert bench("arange", (4,), end=4).factors == ()
