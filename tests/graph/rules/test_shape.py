from __future__ import annotations

from typing import Any

import pytest


def test_heads_split_off_and_merge_back(bench: Any) -> None:
    """(1, 3, 4) to 2 heads of 2 and back, as attention does."""
    x = bench.tensor(1, 3, 4, along=[2])
    split = bench("view", (1, 3, 2, 2), self=x, size=[1, 3, 2, 2])
    turned = bench("transpose", (1, 2, 3, 2), self=split, dim0=1, dim1=2)
    assert bench.along(turned, 1) == [[5, 6]]
    assert bench.along(turned, 3) == [[7, 8, 9, 10]]
    back = bench("transpose", (1, 3, 2, 2), self=turned, dim0=1, dim1=2)
    merged = bench("reshape", (1, 3, 4), self=back, shape=[1, 3, 4])
    assert bench.along(merged, 2) == [[5, 5, 6, 6], [7, 8, 9, 10]]


@pytest.mark.parametrize(
    ("op", "shape", "args", "expected"),
    [
        ("view", (2, 2), {"size": [2, 2]}, {"size": [1, 2]}),
        ("reshape", (2, 2), {"shape": [2, 2]}, {"shape": [1, 2]}),
        ("unflatten", (2, 2), {"dim": 0, "sizes": [2, 2]}, {"sizes": [1, 2]}),
    ],
)
def test_view_sizes_follow_a_removed_block(bench: Any, op: str, shape: Any, args: Any, expected: Any) -> None:
    x = bench.tensor(4)
    bench(op, shape, self=x, **args)
    assert bench.rewrite([5], op, shape, self=x, **args) == expected  # 5 6 are the blocks


def test_permutations(bench: Any) -> None:
    x = bench.tensor(4, 2, 3)  # 1..4, 5 6, 7..9
    for op, shape, args in (
        ("permute", (3, 4, 2), {"dims": [2, 0, -2]}),
        ("movedim", (3, 4, 2), {"source": 2, "destination": 0}),
        ("movedim", (3, 4, 2), {"source": [0, 1], "destination": [1, 2]}),
    ):
        out = bench(op, shape, self=x, **args)
        assert [bench.along(out, d)[0][0] for d in range(3)] == [7, 1, 5]
    flipped = bench("numpy_T", (3, 2, 4), self=x)
    assert [bench.along(flipped, d)[0][0] for d in range(3)] == [7, 5, 1]
    matrix = bench("mT", (4, 3, 2), self=x)
    assert [bench.along(matrix, d)[0][0] for d in range(3)] == [1, 7, 5]


def test_expand_follows_and_rewrites_its_size(bench: Any) -> None:
    x = bench.tensor(1, 4, along=[1])
    out = bench("expand", (2, 3, 4), self=x, size=[2, 3, 4])
    assert bench.along(out, 2) == [[1, 2, 3, 4]]
    assert bench.rewrite([1], "expand", (2, 3, 4), self=x, size=[2, 3, 4]) == {"size": [2, 3, 3]}


def test_copies_go_with_the_original(bench: Any) -> None:
    x = bench.tensor(2)
    assert bench.along(bench("repeat", (4,), self=x, repeats=[2]), 0) == [[1, 2, 1, 2]]
    assert bench.along(bench("repeat_interleave", (4,), self=x, repeats=2, dim=0), 0) == [[1, 1, 2, 2]]
    assert bench.along(bench("flip", (2,), self=x, dims=[0]), 0) == [[2, 1]]


def test_uneven_repeats_pin(bench: Any) -> None:
    bench("repeat_interleave", (3,), self=bench.tensor(2), repeats=bench.fixed(2), dim=0)
    assert bench.pinned == [1, 2]


def test_squeeze_and_unsqueeze(bench: Any) -> None:
    x = bench.tensor(4)
    wide = bench("unsqueeze", (4, 1), self=x, dim=1)
    assert bench.along(bench("squeeze", (4,), self=wide), 0) == [[1, 2, 3, 4]]
