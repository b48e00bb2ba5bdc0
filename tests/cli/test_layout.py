from __future__ import annotations

from compress.cli import layout


def test_table() -> None:
    text = layout.table(("name", "size"), [("a", "10"), ("longer", "9")], right=(1,))
    assert text.splitlines() == ["name    size", "a         10", "longer     9"]


def test_pairs_leave_out_what_is_empty() -> None:
    assert layout.pairs([("a", "1"), ("long", "2"), ("b", "")]) == "a     1\nlong  2"
    assert layout.pairs([]) == ""


def test_percent() -> None:
    assert layout.percent(0.9731) == "97.31 %"
