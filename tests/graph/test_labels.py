"""Labels by hand: four-number arrays through the primitives that every rule is made of."""

from __future__ import annotations

import numpy as np
import pytest

from compress.graph.labels import (
    Factor,
    Relations,
    Value,
    contract,
    distinct_rows,
    join,
    match,
    pad_rank,
    permute_take,
    place,
    reduce,
    squeeze_constant,
)


def value(*rows: object, axis: int = 0) -> Value:
    labels = np.array(rows)
    return Value(labels.shape, (Factor(labels, axis),))


def edges(relations: Relations) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for xs, ys in relations.edges for a, b in zip(xs, ys, strict=True)}


def pinned(relations: Relations) -> list[int]:
    return [int(n) for pin in relations.pins for n in pin.labels]


def test_fresh_labels_start_at_one_because_zero_always_stays() -> None:
    relations = Relations()
    assert relations.fresh(4).tolist() == [1, 2, 3, 4]
    assert relations.fresh(2, 2).tolist() == [[5, 6], [7, 8]]


def test_equal_writes_only_what_differs() -> None:
    relations = Relations()
    relations.equal(np.array([1, 2, 3, 4]), np.array([1, 6, 3, 8]))
    assert edges(relations) == {(2, 6), (4, 8)}


def test_define_by_one_component_is_an_equality() -> None:
    relations = Relations()
    relations.define(np.array([1, 2]), [np.array([3, 4])])
    assert edges(relations) == {(1, 3), (2, 4)}
    assert relations.definitions == []


def test_define_broadcasts_blocks_against_indices() -> None:
    relations = Relations()
    relations.define(np.array([[1, 2], [3, 4]]), [np.array([[5], [6]]), np.array([[7, 8]])])
    (target, block, index) = relations.definitions[0]
    assert list(zip(target.tolist(), block.tolist(), index.tolist(), strict=True)) == [
        (1, 5, 7),
        (2, 5, 8),
        (3, 6, 7),
        (4, 6, 8),
    ]


def test_pin_leaves_out_label_zero_and_keeps_the_reason() -> None:
    relations = Relations(op="aten::sort", where="head")
    relations.pin(np.array([0, 3, 3, 2]), "sorted")
    (pin,) = relations.pins
    assert (pin.labels.tolist(), pin.op, pin.where, pin.reason) == ([2, 3], "aten::sort", "head", "sorted")
    relations.pin(np.array([0]), "nothing to pin")
    assert len(relations.pins) == 1


def test_balance_of_one_row_demands_nothing_and_none_is_written_twice() -> None:
    relations = Relations()
    relations.balance(np.array([[1, 2, 3, 4]]), 1)
    assert relations.balances == []
    for _ in range(2):
        relations.balance(np.array([[1, 2], [3, 4]]), 1)
    relations.balance(np.array([[1, 3], [2, 4]]), 0)  # the same rows, along the other axis
    assert [rows.tolist() for rows in relations.balances] == [[[1, 2], [3, 4]]]


def test_balances_of_the_same_labels_in_other_rows_are_another_demand() -> None:
    relations = Relations()
    relations.balance(np.arange(1, 9).reshape(2, 4), 1)
    relations.balance(np.arange(1, 9).reshape(4, 2), 1)
    assert [rows.shape for rows in relations.balances] == [(2, 4), (4, 2)]


def test_join_unifies_under_broadcasting() -> None:
    relations = Relations()
    x = Value((2, 4), (Factor(np.array([[1, 2, 3, 4]]), 1),))
    out = join(relations, x, value(5, 6, 7, 8))
    assert out.shape == (2, 4)
    assert edges(relations) == {(1, 5), (2, 6), (3, 7), (4, 8)}


def test_join_with_size_one_keeps_the_labels_of_the_other() -> None:
    relations = Relations()
    out = join(relations, Value((4, 1)), value(1, 2, 3, 4))
    assert out.shape == (4, 4)
    assert out.factors[0].labels.tolist() == [[1, 2, 3, 4]]
    assert out.factors[0].axis == 1
    assert not relations.edges
    assert not relations.pins


def test_join_with_a_fixed_tensor_pins() -> None:
    relations = Relations()
    out = join(relations, value(1, 2, 3, 4), Value((4,)))
    assert out.factors == ()
    assert pinned(relations) == [1, 2, 3, 4]


def test_match_of_blocks_with_single_labels_defines_them() -> None:
    relations = Relations()
    blocks, index = Factor(np.array([[1], [2]]), 0), Factor(np.array([[3, 4]]), 0)
    single = Factor(np.array([[5, 6], [7, 8]]), 0)
    assert match(relations, [single], [blocks, index]) == [blocks, index]
    target, first, second = (column.tolist() for column in relations.definitions[0])
    assert target == [5, 6, 7, 8]
    assert first == [1, 1, 2, 2]
    assert second == [3, 4, 3, 4]


def test_reduce_ends_the_reduced_axis_and_aligns_blocks() -> None:
    relations = Relations()
    labels = np.array([[1, 2], [3, 4]])
    out = reduce(relations, Value((2, 2), (Factor(labels, 1),)), [0])
    assert out.shape == (2,)
    assert out.factors[0].labels.tolist() == [1, 2]
    assert edges(relations) == {(3, 1), (4, 2)}
    gone = reduce(relations, value(1, 2, 3, 4), [-1], keepdim=True)
    assert gone == Value((1,))


def test_permute_and_place() -> None:
    x = Value((2, 4), (Factor(np.array([[1, 2, 3, 4]]), 1),))
    turned = permute_take(x, [1, 0])
    assert turned.shape == (4, 2)
    assert turned.factors[0].labels.tolist() == [[1], [2], [3], [4]]
    placed = place(x, [2, 0], 3)
    assert placed.shape == (4, 1, 2)
    assert placed.factors[0].axis == 0
    assert placed.factors[0].labels.shape == (4, 1, 1)
    assert pad_rank(x, 3).factors[0].labels.shape == (1, 1, 4)


def test_squeeze_constant_keeps_only_dims_of_influence() -> None:
    assert squeeze_constant(np.array([[1, 2], [1, 2]])).tolist() == [[1, 2]]
    assert squeeze_constant(np.array([[1, 1], [2, 2]])).tolist() == [[1], [2]]
    assert squeeze_constant(np.array([[1, 2], [2, 1]])).tolist() == [[1, 2], [2, 1]]


def test_contract_is_linear() -> None:
    """(2, 4) inputs with labels 1..4 meet a (2, 4) weight: columns are unified, rows come out."""
    relations = Relations()
    x = Value((2, 4), (Factor(np.array([[1, 2, 3, 4]]), 1),))
    rows, columns = Factor(np.array([[5], [6]]), 0), Factor(np.array([[7, 8, 9, 10]]), 1)
    out = contract(relations, [(x, "nc"), (Value((2, 4), (rows, columns)), "oc")], "no")
    assert out.shape == (2, 2)
    assert out.factors[0].labels.tolist() == [[5, 6]]
    assert edges(relations) == {(1, 7), (2, 8), (3, 9), (4, 10)}


@pytest.mark.parametrize(
    "rows", [[[3, 1], [2, 9], [3, 1]], [[1, 2], [1, 1], [1, 2], [0, 5]], [[4, 4]], [[2, 0], [1, 0]]]
)
def test_distinct_rows_are_those_of_numpy(rows: list[list[int]]) -> None:
    table = np.array(rows)
    assert distinct_rows(table).tolist() == np.unique(table, axis=0).tolist()


def test_distinct_labels_are_sorted_whatever_the_size_of_the_array() -> None:
    relations = Relations()
    relations.fresh(1000)
    for labels in (np.array([7, 3, 7]), np.tile(np.array([[7], [3]]), (1, 100)), np.zeros(0, dtype=np.int64)):
        assert relations.distinct(labels).tolist() == np.unique(labels).tolist()
