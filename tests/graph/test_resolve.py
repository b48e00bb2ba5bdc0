"""Relations by hand: what becomes a unit, what is pinned, what is derived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.graph.labels import Relations
from compress.graph.resolve import Classes, resolve


def relations(count: int) -> Relations:
    """Labels 1 to ``count``."""
    made = Relations()
    made.fresh(count)
    return made


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers)


def free(classes: Classes, labels: Sequence[int]) -> list[bool]:
    return [bool(classes.expand(int(classes.of_label[n]))) for n in labels]


def parts(classes: Classes, label: int) -> set[int]:
    return set(classes.expand(int(classes.of_label[label])))


def test_labels_without_relations_are_units_of_their_own() -> None:
    classes = resolve(relations(4))
    assert free(classes, [0, 1, 2, 3, 4]) == [False, True, True, True, True]
    assert len({int(c) for c in classes.of_label}) == 5


def test_equalities_chain() -> None:
    made = relations(4)
    made.equal(ints(1, 2), ints(2, 3))
    classes = resolve(made)
    assert classes.of_label[1] == classes.of_label[3] != classes.of_label[4]


def test_pins_spread_along_equalities_and_keep_their_reason() -> None:
    made = relations(3)
    made.op = "aten::sort"
    made.pin(ints(1), "sorted")
    made.equal(ints(1), ints(2))
    classes = resolve(made)
    assert free(classes, [1, 2, 3]) == [False, False, True]
    assert classes.pin_of[int(classes.of_label[2])].reason == "sorted"


def test_definition_makes_a_derived_class() -> None:
    made = relations(3)
    made.define(ints(1), [ints(2), ints(3)])
    classes = resolve(made)
    assert parts(classes, 1) == parts(classes, 2) | parts(classes, 3)
    alive = classes.alive(np.array(sorted(parts(classes, 2))))
    assert alive.tolist() == [True, False, False, True]


def test_two_definitions_that_agree_unify_their_components() -> None:
    """Label 1 is block 2 or index 3, and also block 4 or index 5."""
    made = relations(5)
    made.define(ints(1), [ints(2), ints(3)])
    made.define(ints(1), [ints(4), ints(5)])
    classes = resolve(made)
    assert classes.of_label[2] == classes.of_label[4]
    assert classes.of_label[3] == classes.of_label[5]
    assert len(parts(classes, 1)) == 2


def test_definitions_of_different_depth_pin_what_the_other_lacks() -> None:
    made = relations(5)
    made.define(ints(1), [ints(2), ints(3)])
    made.define(ints(1), [ints(4), ints(5), ints(3)])
    classes = resolve(made)
    assert free(classes, [4]) == [False]
    assert classes.of_label[2] == classes.of_label[5]
    assert len(parts(classes, 1)) == 2


def test_pinned_target_pins_its_components() -> None:
    made = relations(3)
    made.define(ints(1), [ints(2), ints(3)])
    made.pin(ints(1), "stays")
    assert free(resolve(made), [1, 2, 3]) == [False, False, False]


def test_pinned_component_leaves_the_other() -> None:
    made = relations(3)
    made.define(ints(1), [ints(2), ints(3)])
    made.pin(ints(2), "stays")
    classes = resolve(made)
    assert free(classes, [1, 2, 3]) == [True, False, True]
    assert classes.of_label[1] == classes.of_label[3]


def test_nothing_left_that_could_remove_pins_the_target() -> None:
    made = relations(3)
    made.define(ints(1), [ints(2), ints(3)])
    made.pin(ints(2, 3), "stay")
    assert free(resolve(made), [1]) == [False]


def test_defined_by_itself_pins_the_rest() -> None:
    made = relations(3)
    made.define(ints(1), [ints(1), ints(2)])
    assert free(resolve(made), [1, 2, 3]) == [True, False, True]


def test_circle_of_definitions_stays() -> None:
    made = relations(4)
    made.define(ints(1), [ints(2), ints(3)])
    made.define(ints(2), [ints(1), ints(4)])
    classes = resolve(made)
    assert free(classes, [1, 2]) == [False, False]


def test_definition_of_definitions_expands_to_units() -> None:
    made = relations(5)
    made.define(ints(1), [ints(2), ints(3)])
    made.define(ints(2), [ints(4), ints(5)])
    classes = resolve(made)
    assert parts(classes, 1) == parts(classes, 3) | parts(classes, 4) | parts(classes, 5)


def test_uneven_balance_pins_the_free_rows() -> None:
    """A row with one pinned label beside a row without: neither may lose any."""
    made = relations(4)
    made.balance(np.array([[1, 2], [3, 4]]), 1)
    made.pin(ints(1), "stays")
    assert free(resolve(made), [1, 2, 3, 4]) == [False, False, False, False]


def test_even_balance_leaves_the_free_labels() -> None:
    made = relations(4)
    made.balance(np.array([[1, 2], [3, 4]]), 1)
    made.pin(ints(1, 3), "stay")
    assert free(resolve(made), [1, 2, 3, 4]) == [False, True, False, True]


def test_blocks_stay_where_a_balanced_row_has_none() -> None:
    """Row 1 2 3 4 loses single labels; row 5 6 7 8 lies in the blocks 9 9 10 10 with the places 11 12 11 12."""
    made = relations(12)
    made.define(ints(5, 6, 7, 8), [ints(9, 9, 10, 10), ints(11, 12, 11, 12)])
    made.block_labels.append(ints(9, 10))
    made.balance(np.stack([ints(1, 2, 3, 4), ints(5, 6, 7, 8)]), 1)
    classes = resolve(made)
    assert free(classes, [1, 2, 3, 4, 11, 12]) == [True] * 6
    assert free(classes, [9, 10]) == [False, False]
    assert parts(classes, 5) == parts(classes, 7) == parts(classes, 11)


def test_blocks_go_where_every_balanced_row_has_some() -> None:
    made = relations(16)
    made.define(ints(1, 2, 3, 4), [ints(13, 13, 14, 14), ints(15, 16, 15, 16)])
    made.define(ints(5, 6, 7, 8), [ints(9, 9, 10, 10), ints(11, 12, 11, 12)])
    made.block_labels += [ints(9, 10), ints(13, 14)]
    made.balance(np.stack([ints(1, 2, 3, 4), ints(5, 6, 7, 8)]), 1)
    assert free(resolve(made), [9, 10, 13, 14]) == [True] * 4
