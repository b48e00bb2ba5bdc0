from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np


def test_embedding_pins_rows_and_gives_columns(bench: Any) -> None:
    weight = bench.tensor(3, 4)  # rows 1..3, columns 4..7
    out = bench("embedding", (2, 5, 4), weight=weight, indices=bench.fixed(2, 5))
    assert bench.along(out, 2) == [[4, 5, 6, 7]]
    assert bench.pinned == [1, 2, 3]


def test_index_pins_the_indexed_dim_only(bench: Any) -> None:
    x = bench.tensor(3, 4)
    out = bench("index", (2, 4), self=x, indices=[bench.fixed(2)])
    assert bench.along(out, 1) == [[4, 5, 6, 7]]
    assert bench.pinned == [1, 2, 3]


def test_index_in_the_middle_with_two_index_dims(bench: Any) -> None:
    x = bench.tensor(4, 3, 2, along=[0, 2])
    out = bench("index", (4, 5, 6, 2), self=x, indices=[None, bench.fixed(5, 6)])
    assert bench.along(out, 0) == [[1, 2, 3, 4]]
    assert bench.along(out, 3) == [[5, 6]]
    assert not bench.pinned


def test_index_with_a_gap_has_no_rule(bench: Any) -> None:
    bench("index", (5, 4), self=bench.tensor(3, 4, 2, along=[1]), indices=[bench.fixed(5), None, bench.fixed(5)])
    assert bench.pinned == [1, 2, 3, 4]
    assert bench.reasons == {"indexed in a way that has no rule"}


def test_index_select_pins_its_dim(bench: Any) -> None:
    x = bench.tensor(3, 4)
    out = bench("index_select", (3, 2), self=x, dim=1, index=bench.fixed(2))
    assert bench.along(out, 0) == [[1, 2, 3]]
    assert bench.pinned == [4, 5, 6, 7]


def test_index_select_by_a_list_that_may_get_shorter(bench: Any) -> None:
    out = bench("index_select", (3, 2), self=bench.fixed(3, 4), dim=-1, index=bench.tensor(2))
    assert bench.along(out, 1) == [[1, 2]]
    assert not bench.pinned


def test_roll_moves_labels_and_turns_by_what_is_kept(bench: Any) -> None:
    args = {"self": bench.tensor(5), "shifts": [-2], "dims": [0]}
    assert bench.along(bench("roll", (5,), **args), 0) == [[3, 4, 5, 1, 2]]
    assert bench.rewrite([2, 3], "roll", (5,), **args) == {"shifts": [2]}  # 1 | 4 5
    assert bench.rewrite([], "roll", (5,), **args) == {"shifts": [-2]}
    assert not bench.pinned


def test_a_constant_list_names_labels_in_its_order(bench: Any) -> None:
    """Entries 8 and 9 go with what they name."""
    x = bench.tensor(3, 4)  # rows 1..3, columns 4..7
    listed = replace(bench.tensor(2), index=np.array([3, 1]))
    out = bench("index_select", (3, 2), self=x, dim=1, index=listed)
    assert bench.along(out, 1) == [[7, 5]] and bench.along(out, 0) == [[1, 2, 3]]
    assert bench.edges == {(7, 8), (5, 9)} and not bench.pinned


def test_a_list_of_one_keeps_what_it_names(bench: Any) -> None:
    listed = replace(bench.fixed(1), index=np.array([2]))
    bench("index_select", (3, 1), self=bench.tensor(3, 4), dim=1, index=listed)
    assert bench.pinned == [6] and bench.reasons == {"the only index of a list"}


def test_a_list_of_what_has_a_given_size_stays(bench: Any) -> None:
    listed = replace(bench.tensor(2), index=np.array([3, 1]))
    out = bench("index_select", (3, 2), self=bench.fixed(3, 4), dim=1, index=listed)
    assert not out.factors and bench.pinned == [1, 2]
