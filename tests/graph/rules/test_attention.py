from __future__ import annotations

from typing import Any

import pytest

SDPA = "scaled_dot_product_attention"


def test_query_and_key_share_features_and_the_value_gives_them(bench: Any) -> None:
    """One head of 4 features over 3 positions."""
    q, k, v = (bench.tensor(1, 1, 3, 4, along=[3]) for _ in range(3))
    out = bench(SDPA, (1, 1, 3, 4), query=q, key=k, value=v)
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}
    assert bench.along(out, 3) == [[9, 10, 11, 12]]


def test_heads_are_shared_by_all_three(bench: Any) -> None:
    q, k, v = (bench.tensor(1, 4, 3, 2, along=[1]) for _ in range(3))
    out = bench(SDPA, (1, 4, 3, 2), query=q, key=k, value=v)
    joined = {1: 1}
    for a, b in sorted(bench.edges):
        joined[b] = joined.get(a, a)
    assert {joined.get(n, n) for n in (1, 5, 9)} == {1}
    assert len(bench.along(out, 1)) == 1


def test_grouped_query_repeats_the_key_and_value_heads(bench: Any) -> None:
    """4 query heads on 2 key heads: queries 1 2 belong to key 5, queries 3 4 to key 6."""
    q = bench.tensor(1, 4, 3, 2, along=[1])
    k, v = (bench.tensor(1, 2, 3, 2, along=[1]) for _ in range(2))
    bench(SDPA, (1, 4, 3, 2), query=q, key=k, value=v, enable_gqa=True)
    assert {(1, 5), (2, 5), (3, 6), (4, 6)} <= bench.edges


def test_key_positions_are_pinned_by_the_softmax(bench: Any) -> None:
    q, k, v = bench.fixed(1, 1, 3, 2), bench.tensor(1, 1, 4, 2, along=[2]), bench.fixed(1, 1, 4, 2)
    bench(SDPA, (1, 1, 3, 2), query=q, key=k, value=v)
    assert bench.pinned == [1, 2, 3, 4]
    assert bench.reasons == {"normalised by a softmax"}


def test_mask_by_head_goes_with_the_head(bench: Any) -> None:
    q, k, v = (bench.tensor(1, 4, 3, 2, along=[1]) for _ in range(3))
    mask = bench.tensor(4, 1, 1)  # labels 13..16
    bench(SDPA, (1, 4, 3, 2), query=q, key=k, value=v, attn_mask=mask)
    assert all(any(n in pair for pair in bench.edges) for n in (13, 14, 15, 16))
    assert not bench.pinned


@pytest.mark.parametrize(
    ("removed", "scale", "expected"),
    [((), None, {}), ((1, 5), None, {"scale": 0.5}), ((1, 5), 2.0, {})],
    ids=["nothing removed", "default scale of four features", "given scale"],
)
def test_scale_is_frozen_when_features_go(bench: Any, removed: Any, scale: Any, expected: Any) -> None:
    q, k, v = (bench.tensor(1, 1, 3, 4, along=[3]) for _ in range(3))
    assert bench.rewrite(removed, SDPA, (1, 1, 3, 4), query=q, key=k, value=v, scale=scale) == expected
