from __future__ import annotations

import pytest

from compress.wording import amount, change, milliseconds, plural, points, signed


def test_plural() -> None:
    assert [plural(n, "epoch") for n in (0, 1, 2, 1200)] == ["0 epochs", "1 epoch", "2 epochs", "1,200 epochs"]
    assert [plural(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [signed(value, 2) for value in (1.25, -0.28)] == ["+1.25", "-0.28"]
    assert {signed(value, 2) for value in (0.004, -0.004, 0.0)} == {"0.00"}


def test_points() -> None:
    assert points(0.95, 0.9472) == "-0.28 points"
    assert points(0.95, 0.94999) == "0.00 points"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(11689512, "", "11.7 M"), (999, "B", "999 B"), (0, "", "0"), (1.8e9, "", "1.80 G"), (123456, "B", "123 kB"),
     (None, "B", "-"), (999_999, "", "1.00 M")],
)  # fmt: skip
def test_amount(value: float | None, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_change() -> None:
    assert change(4, 1) == "-75.0 %"
    assert change(4, 5) == "+25.0 %"
    assert change(4, 4) == "same"
    assert change(0, 5) == change(None, 5) == change(5, None) == "-"


def test_milliseconds() -> None:
    assert [milliseconds(seconds) for seconds in (0.0000678, 0.0016, 0.016, 1.2345)] == [
        "0.0678 ms",
        "1.60 ms",
        "16.0 ms",
        "1234 ms",
    ]
