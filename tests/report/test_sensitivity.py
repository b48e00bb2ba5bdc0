"""How families of units are told."""

from __future__ import annotations

from compress.report.sensitivity import label


def test_labels_count_the_groups() -> None:
    assert label("a", ("a",)) == "a"
    assert label("a", ("a", "b", "c")) == "a (+2)"
