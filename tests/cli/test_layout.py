from __future__ import annotations

import pytest

from compress.cli import layout


def test_table() -> None:
    text = layout.table(("name", "size"), [("a", "10"), ("longer", "9")], right=(1,))
    assert text.splitlines() == ["name    size", "a         10", "longer     9"]


def test_pairs_leave_out_what_is_empty() -> None:
    assert layout.pairs([("a", "1"), ("long", "2"), ("b", "")]) == "a     1\nlong  2"
    assert layout.pairs([]) == ""


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (1_500, "", "1.5 k"),
        (11_689_512, "", "11.7 M"),
        (46_800_000, "B", "46.8 MB"),
        (1_814_073_344, "", "1.8 G"),
        (12, "B", "12 B"),
    ],
)
def test_amount(value: float, unit: str, text: str) -> None:
    assert layout.amount(value, unit) == text


def test_change() -> None:
    assert layout.change(200, 150) == "-25.0 %"
    assert layout.change(200, 210) == "+5.0 %"
    assert layout.change(0, 10) == ""


def test_percent() -> None:
    assert layout.percent(0.9731) == "97.3 %"
