from __future__ import annotations

from typing import Any

import pytest


def test_batch_norm_takes_its_vectors_along(bench: Any) -> None:
    x = bench.tensor(2, 4, 3, along=[1])
    vectors = {name: bench.tensor(4) for name in ("weight", "bias", "running_mean", "running_var")}
    out = bench("batch_norm", (2, 4, 3), input=x, **vectors)
    assert bench.along(out, 1) == [[1, 2, 3, 4]]
    assert bench.edges == {(c, c + 4 * i) for c in (1, 2, 3, 4) for i in (1, 2, 3, 4)}


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_layer_norm_changes_its_shape(bench: Any, op: str) -> None:
    x, weight = bench.tensor(2, 4, along=[1]), bench.tensor(4)
    args = {"input": x, "normalized_shape": [4], "weight": weight}
    assert bench.rewrite([2, 6], op, (2, 4), **args) == {"normalized_shape": [3]}
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


def test_group_norm_balances_its_groups(bench: Any) -> None:
    x, weight = bench.tensor(2, 4, 3, along=[1]), bench.tensor(4)
    args = {"input": x, "num_groups": 2, "weight": weight}
    out = bench("group_norm", (2, 4, 3), **args)
    assert len(out.along(1)) == 2
    (balanced,) = bench.relations.balances
    assert balanced.shape == (2, 2)
    block = bench.relations.block_labels[0]
    assert bench.rewrite([3, 4, int(block[1])], "group_norm", (2, 4, 3), **args) == {"num_groups": 1}


def test_group_norm_with_one_group_splits_nothing(bench: Any) -> None:
    out = bench("group_norm", (2, 4, 3), input=bench.tensor(2, 4, 3, along=[1]), num_groups=1)
    assert bench.along(out, 1) == [[1, 2, 3, 4]]
    assert bench.relations.balances == []
