from __future__ import annotations

from typing import Any

import pytest

from compress.report import build_report, summary_rows
from compress.report.table import amount, change


def test_rows(full: dict[str, Any]) -> None:
    assert summary_rows(build_report(**full)) == [
        ("parameters", "1.00 k", "420", "0.42x (-58.0 %)"),
        ("parameters that are not zero", "1.00 k", "400", "0.4x (-60.0 %)"),
        ("MACs per sample", "2.00 M", "1.00 M", "0.5x (-50.0 %)"),
        ("weights on disk", "4.20 kB", "2.10 kB", "0.5x (-50.0 %)"),
        ("accuracy (100 samples, 95 %)", "95.00 % [88.82, 97.85]", "94.00 % [87.52, 97.22]", "-1.00 points"),
        ("latency, median (batch 8, 1 thread, 50 runs)", "4 ms", "2 ms", "2.00x as fast"),
        ("latency, 90 % below", "5 ms", "2.5 ms", "-"),
        ("model.safetensors", "-", "2.10 kB", "-"),
        ("model.onnx", "-", "2.50 kB", "-"),
    ]


def test_only_what_was_measured(least: dict[str, Any], full: dict[str, Any]) -> None:
    assert [row[0] for row in summary_rows(build_report(**least))] == ["parameters"]
    one_sided = build_report(**{**least, "after": full["after"]})
    rows = {row[0]: row[1:] for row in summary_rows(one_sided)}
    assert rows["accuracy (100 samples, 95 %)"] == ("-", "94.00 % [87.52, 97.22]", "-")
    assert rows["MACs per sample"] == ("-", "1.00 M", "-")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(11689512, "", "11.7 M"), (999, "B", "999 B"), (0, "", "0"), (1.8e9, "", "1.80 G"), (123456, "B", "123 kB"),
     (None, "B", "-"), (999_999, "", "1.00 M")],
)  # fmt: skip
def test_amount(value: float | None, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_change() -> None:
    assert change(4, 1) == "0.25x (-75.0 %)"
    assert change(4, 5) == "1.25x (+25.0 %)"
    assert change(0, 5) == change(None, 5) == change(5, None) == "-"
