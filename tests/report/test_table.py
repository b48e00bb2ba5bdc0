from __future__ import annotations

from typing import Any

import pytest

from compress.report import Measures, build_report, summary_rows
from compress.report.table import amount, change, milliseconds


def test_rows(full: dict[str, Any]) -> None:
    assert summary_rows(build_report(**full)) == [
        ("units", "8", "4", "-50.0 %"),
        ("parameters", "1.00 k", "420", "-58.0 %"),
        ("MACs per sample", "2.00 M", "1.00 M", "-50.0 %"),
        ("parameters that are not zero", "1.00 k", "400", "-60.0 %"),
        ("weights of masked layers not zero", "800", "380", "-52.5 %"),
        ("weights", "4.20 kB", "2.10 kB", "-50.0 %"),
        ("file on disk", "4.20 kB", "2.10 kB", "-50.0 %"),
        ("model.onnx", "-", "2.50 kB", "-"),
        ("accuracy, 100 samples (95 % interval)", "95.00 % (88.8 to 97.9)", "94.00 % (87.5 to 97.2)", "-1.00 points"),
        ("latency, median (batch 8, 1 thread)", "4.00 ms", "2.00 ms", "2.00x as fast"),
        ("latency, 90th percentile", "5.00 ms", "2.50 ms", "-"),
    ]


def test_only_what_was_measured(least: dict[str, Any], full: dict[str, Any]) -> None:
    assert [row[0] for row in summary_rows(build_report(**least))] == ["parameters"]
    one_sided = build_report(**{**least, "after": full["after"]})
    rows = {row[0]: row[1:] for row in summary_rows(one_sided)}
    assert rows["accuracy, 100 samples (95 % interval)"] == ("-", "94.00 % (87.5 to 97.2)", "-")
    assert rows["file on disk"] == ("-", "2.10 kB", "-")
    assert rows["MACs per sample"] == ("-", "1.00 M", "-")


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


def test_three_sizes_are_kept_apart(least: dict[str, Any]) -> None:
    """A method of whole units masks nothing, so the third row is missing there."""
    units = build_report(**{**least, "before": Measures(1000, 990), "after": Measures(420, 420)})
    assert summary_rows(units) == [
        ("parameters", "1.00 k", "420", "-58.0 %"),
        ("parameters that are not zero", "990", "420", "-57.6 %"),
    ]
    masked = {"before": Measures(1000, 1000, nominal=800), "after": Measures(900, 300, nominal=200)}
    assert summary_rows(build_report(**{**least, **masked})) == [
        ("parameters", "1.00 k", "900", "-10.0 %"),
        ("parameters that are not zero", "1.00 k", "300", "-70.0 %"),
        ("weights of masked layers not zero", "800", "200", "-75.0 %"),
    ]


def test_milliseconds() -> None:
    assert [milliseconds(seconds) for seconds in (0.0000678, 0.0016, 0.016, 1.2345)] == [
        "0.0678 ms",
        "1.60 ms",
        "16.0 ms",
        "1234 ms",
    ]
