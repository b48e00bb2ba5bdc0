from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("split", {"split_size": 2}),
        ("split_with_sizes", {"split_sizes": [2, 2]}),
        ("chunk", {"chunks": 2}),
        ("tensor_split", {"sections": 2}),
    ],
)
def test_split_deals_out_the_labels(bench: Any, op: str, args: Any) -> None:
    x = bench.tensor(1, 4, along=[1])
    first, second = bench(op, (1, 2), (1, 2), self=x, dim=1, **args)
    assert (bench.along(first, 1), bench.along(second, 1)) == ([[1, 2]], [[3, 4]])
    assert [p.tolist() for p in bench.relations.pieces] == [[1, 2], [3, 4]]
    changes = bench.rewrite([2], op, (1, 2), (1, 2), self=x, dim=1, **args)
    assert (changes["@target"], changes["split_sizes"]) == ("aten::split_with_sizes", [1, 2])
    assert bench.rewrite([], op, (1, 2), (1, 2), self=x, dim=1, **args) == {}


def test_piece_of_one_keeps_its_only_index(bench: Any) -> None:
    bench("split_with_sizes", (1,), (3,), self=bench.tensor(4), split_sizes=[1, 3], dim=0)
    assert bench.pinned == [1]
    assert bench.reasons == {"the only index of a piece"}


def test_slice_moves_its_bounds(bench: Any) -> None:
    x = bench.tensor(4)
    args = {"self": x, "dim": 0, "start": 1, "end": 4}
    assert bench.along(bench("slice", (3,), **args), 0) == [[2, 3, 4]]
    assert bench.rewrite([1], "slice", (3,), **args) == {"start": 0, "end": 3}
    assert bench.rewrite([2, 3], "slice", (3,), **args) == {"start": 1, "end": 2}


def test_slice_to_an_open_end_stays_open_where_nothing_goes(bench: Any) -> None:
    x = bench.tensor(2, 4)
    args = {"self": x, "dim": 0, "start": 0, "end": 2**63 - 1}
    assert bench.rewrite([3], "slice", (2, 4), **args) == {}


def test_slice_in_uneven_steps_pins(bench: Any) -> None:
    bench("slice", (2,), self=bench.tensor(4), dim=0, start=0, end=4, step=3)
    assert bench.pinned == [1, 2, 3, 4]
    assert bench.reasons == {"taken in steps"}


def test_slice_in_even_steps_ties_neighbours(bench: Any) -> None:
    args = {"self": bench.tensor(4), "dim": 0, "start": 1, "end": 4, "step": 2}
    out = bench("slice", (2,), **args)
    assert bench.along(out, 0) == [[5, 6]]  # 5 and 6: the pairs 1 2 and 3 4
    assert bench.reasons == {"taken in steps"}  # of the places inside a pair
    assert bench.rewrite([1, 2, 5], "slice", (2,), **args) == {"end": 2}


def test_slice_in_steps_of_another_dim_passes(bench: Any) -> None:
    x = bench.tensor(4, 6, along=[0])
    assert bench.along(bench("slice", (4, 3), self=x, dim=1, step=2), 0) == [[1, 2, 3, 4]]


def test_narrow_counts_from_the_end(bench: Any) -> None:
    x = bench.tensor(4)
    assert bench.along(bench("narrow", (2,), self=x, dim=0, start=-2, length=2), 0) == [[3, 4]]
    changes = bench.rewrite([1, 3], "narrow", (2,), self=x, dim=0, start=2, length=2)
    assert changes == {"start": 1, "length": 1}


def test_select_pins_its_index_and_moves(bench: Any) -> None:
    x = bench.tensor(4, 2)
    out = bench("select", (2,), self=x, dim=0, index=-1)
    assert bench.pinned == [4]
    assert bench.along(out, 0) == [[5, 6]]
    assert bench.rewrite([1, 2], "select", (2,), self=x, dim=0, index=3) == {"index": 1}


def test_unbind_pins_every_index(bench: Any) -> None:
    first, second = bench("unbind", (4,), (4,), self=bench.tensor(2, 4), dim=0)
    assert bench.pinned == [1, 2]
    assert bench.along(first, 0) == bench.along(second, 0) == [[3, 4, 5, 6]]


def test_glu_ties_its_halves(bench: Any) -> None:
    out = bench("glu", (1, 2), self=bench.tensor(1, 4, along=[1]), dim=-1)
    assert bench.edges == {(1, 3), (2, 4)}
    assert bench.along(out, 1) == [[1, 2]]


def test_cat_puts_labels_side_by_side_with_zeros_for_what_stays(bench: Any) -> None:
    out = bench("cat", (1, 5), tensors=[bench.tensor(1, 3, along=[1]), bench.fixed(1, 2)], dim=1)
    assert bench.along(out, 1) == [[1, 2, 3, 0, 0]]


def test_cat_along_another_dim_unifies(bench: Any) -> None:
    x, y = bench.tensor(1, 4, along=[1]), bench.tensor(2, 4, along=[1])
    assert bench.along(bench("cat", (3, 4), tensors=[x, y], dim=0), 1) == [[1, 2, 3, 4]]
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


def test_cat_leaves_out_the_empty_tensor(bench: Any) -> None:
    out = bench("cat", (4,), tensors=[bench.fixed(0), bench.tensor(4)], dim=0)
    assert bench.along(out, 0) == [[1, 2, 3, 4]]


def test_stack_keeps_labels_apart_but_in_balance(bench: Any) -> None:
    out = bench("stack", (2, 4), tensors=[bench.tensor(4), bench.tensor(4)], dim=0)
    (factor,) = out.along(1)
    assert factor.labels.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert not bench.edges
    assert len(bench.relations.balances) == 1
