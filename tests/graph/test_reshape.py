"""Labels of views: splits into blocks, merges, round trips, and views that cut across."""

from __future__ import annotations

import pytest

from compress.graph.labels import Factor, Relations, Value
from compress.graph.reshape import refinement, reshape


def vector(size: int = 4) -> tuple[Relations, Value]:
    relations = Relations()
    return relations, Value((size,), (Factor(relations.fresh(size), 0),))


@pytest.mark.parametrize(
    ("old", "new", "fine"),
    [
        ((4,), (2, 2), [2, 2]),
        ((2, 6), (4, 3), [2, 2, 3]),
        ((2, 3), (3, 2), None),
        ((1, 4, 1), (4,), [4]),
        ((2, 2, 2), (8,), [2, 2, 2]),
    ],
)
def test_refinement(old: tuple[int, ...], new: tuple[int, ...], fine: list[int] | None) -> None:
    assert refinement(old, new) == fine


def test_split_makes_blocks_and_indices() -> None:
    """Labels 1 2 3 4 seen as two heads of two features: a head and an index remove an element each."""
    relations, x = vector()
    out = reshape(relations, x, (2, 2))
    blocks, inner = out.factors
    assert (blocks.labels.tolist(), blocks.axis) == ([[5], [6]], 0)
    assert (inner.labels.tolist(), inner.axis) == ([[7, 8], [9, 10]], 1)
    target, block, index = (column.tolist() for column in relations.definitions[0])
    assert sorted(zip(target, block, index, strict=True)) == [(1, 5, 7), (2, 5, 8), (3, 6, 9), (4, 6, 10)]
    assert [rows.tolist() for rows in relations.balances] == [[[7, 8], [9, 10]]]


def test_split_of_the_same_labels_gives_the_same_blocks() -> None:
    relations, x = vector()
    first, second = reshape(relations, x, (2, 2)), reshape(relations, x, (2, 2))
    assert [f.labels.tolist() for f in first.factors] == [f.labels.tolist() for f in second.factors]
    assert len(relations.definitions) == 1


def test_merge_keeps_both_kinds_of_unit_on_one_dim() -> None:
    relations, x = vector()
    back = reshape(relations, reshape(relations, x, (2, 2)), (4,))
    assert back.shape == (4,)
    assert [f.labels.tolist() for f in back.factors] == [[5, 5, 6, 6], [7, 8, 9, 10]]
    assert {f.axis for f in back.factors} == {0}


def test_merge_with_a_dim_without_labels_repeats_the_labels() -> None:
    relations = Relations()
    x = Value((2, 3), (Factor(relations.fresh(2).reshape(2, 1), 0),))
    assert reshape(relations, x, (6,)).factors[0].labels.tolist() == [1, 1, 1, 2, 2, 2]


def test_interleaved_blocks_are_aligned() -> None:
    """(4, 2) whose second dim is a block of the first: flattened, survivors of both blocks must line up."""
    relations = Relations()
    x = Value((4, 2), (Factor(relations.fresh(4, 2), 0),))
    out = reshape(relations, x, (8,))
    assert out.factors[0].labels.tolist() == [1, 1, 3, 3, 5, 5, 7, 7]
    assert {(int(a), int(b)) for a, b in zip(*relations.edges[0], strict=True)} == {(2, 1), (4, 3), (6, 5), (8, 7)}


def test_view_across_blocks_pins() -> None:
    relations = Relations()
    x = Value((2, 3), (Factor(relations.fresh(3).reshape(1, 3), 1),))
    out = reshape(relations, x, (3, 2))
    assert out == Value((3, 2))
    assert relations.pins[0].labels.tolist() == [1, 2, 3]
    assert "cuts across blocks" in relations.pins[0].reason


def test_ones_come_and_go() -> None:
    relations, x = vector()
    out = reshape(relations, x, (1, 4, 1))
    assert out.factors[0].labels.tolist() == [[[1], [2], [3], [4]]]
    assert out.factors[0].axis == 1
    assert relations.definitions == []
