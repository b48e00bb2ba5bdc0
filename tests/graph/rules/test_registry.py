from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.graph.labels import Factor, Value
from compress.graph.propagate import rule_of
from compress.graph.rules import RULES, Kept, UnbalancedError, rule
from compress.graph.rules.registry import fixed, mixing, only


def kept(count: int, *removed: int) -> Kept:
    alive = np.ones(count, dtype=bool)
    alive[list(removed)] = False
    return Kept(alive)


def test_counts_by_range_and_vector() -> None:
    value = Value((2, 4), (Factor(np.array([[1, 2, 3, 4]]), 1),))
    left = kept(5, 2, 4)
    assert left.shape(value) == (2, 2)
    assert left.count(value, 1, 0, 2) == 1
    assert left.count(value, 1, 3, 99) == 0
    assert left.count(value, 0, 0, 1) == 1
    assert left.vector(value, 1).tolist() == [True, False, True, False]


def test_element_mask_is_none_when_nothing_goes() -> None:
    value = Value((4,), (Factor(np.array([1, 2, 3, 4]), 0),))
    assert kept(5).element_mask(value) is None
    mask = kept(5, 1).element_mask(value)
    assert mask is not None
    assert mask.tolist() == [False, True, True, True]


def test_blocks_that_disagree_are_refused() -> None:
    value = Value((2, 2), (Factor(np.array([[1, 2], [3, 4]]), 1),))
    assert kept(5, 1, 4).count(value, 1) == 1
    assert kept(5, 1, 2).count(value, 1) == 2  # a block that is gone does not count
    value = Value((2, 3), (Factor(np.array([[1, 2, 3], [4, 5, 6]]), 1),))
    with pytest.raises(UnbalancedError, match=r"\[1, 3\] along dim 1"):
        kept(7, 1, 2).count(value, 1)


def test_fixed_pins_and_only_passes_what_it_names(bench: Any) -> None:
    x = bench.tensor(3, 4)
    call = bench.call("anything", (3, 4), self=x)
    assert [f.axis for f in only(call, x, [0], "elsewhere")] == [0]
    assert bench.pinned == [4, 5, 6, 7]
    result = fixed(call, "no rule")
    assert isinstance(result, Value)
    assert result.factors == ()
    assert bench.reasons == {"elsewhere", "no rule"}


def test_in_place_forms_follow_their_plain_form() -> None:
    assert rule_of("aten::squeeze_", None) is RULES["aten::squeeze"]
    assert rule_of("aten::dropout_", None) is RULES["aten::dropout"]
    assert rule_of("aten::logcumsumexp", None) is None


def test_a_rule_can_be_added_for_ones_own_operation() -> None:
    @rule("mylib::gate")
    def gate(call: Any) -> Value:
        return call["x"]

    try:
        assert rule_of("mylib::gate", None) is gate
    finally:
        del RULES["mylib::gate"]


def test_mixing_makes_labels_equal_along_the_mixed_dim_only(bench: Any) -> None:
    """Two heads of two features; what mixes heads sees the features 1 2 | 3 4 as 1 2."""
    x = Value((2, 2), (Factor(np.array([[1, 2], [3, 4]]), 1), Factor(np.array([[5], [6]]), 0)))
    call = bench.call("anything", (2, 2), self=x)
    features, blocks = mixing(call, x, [0]).factors
    assert features.labels.tolist() == [[1, 2]]
    assert blocks.labels.tolist() == [[5], [6]]
    assert bench.edges == {(1, 3), (2, 4)}
    assert mixing(call, x, [1]).factors[0].labels.tolist() == [[1, 2], [3, 4]]
