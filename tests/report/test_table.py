from __future__ import annotations

from typing import Any

import pytest

from compress.report import Measures, build_report, summary_rows
from compress.report.table import budget_text


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
        ("confidence where right, mean of 1 class", "90.00 %", "87.50 %", "-2.50 points"),
        ("latency, median (batch 8, 1 thread)", "4.00 ms", "2.00 ms", "2.00x as fast"),
        ("latency, 90th percentile", "5.00 ms", "2.50 ms", "-"),
    ]


def test_the_runtime_is_named_where_it_is_not_pytorch(full: dict[str, Any]) -> None:
    report = build_report(**full)
    for side in ("before", "after"):
        report[side]["latency"]["runtime"] = "onnxruntime"
    assert summary_rows(report)[-2][0] == "latency, median (onnxruntime, batch 8, 1 thread)"
    for side in ("before", "after"):
        del report[side]["latency"]["runtime"]  # as earlier versions wrote it
    assert summary_rows(report)[-2][0] == "latency, median (batch 8, 1 thread)"


def test_only_what_was_measured(least: dict[str, Any], full: dict[str, Any]) -> None:
    assert [row[0] for row in summary_rows(build_report(**least))] == ["parameters"]
    one_sided = build_report(**{**least, "after": full["after"]})
    rows = {row[0]: row[1:] for row in summary_rows(one_sided)}
    assert rows["accuracy, 100 samples (95 % interval)"] == ("-", "94.00 % (87.5 to 97.2)", "-")
    assert rows["file on disk"] == ("-", "2.10 kB", "-")
    assert rows["MACs per sample"] == ("-", "1.00 M", "-")


@pytest.mark.parametrize(
    ("kind", "target", "reached", "text"),
    [
        ("macs", 921e6, 917e6, "917 M of at most 921 M MACs (99.5 %)"),
        ("params", 1000, 999.9, "999.9 of at most 1.00 k parameters (99.9 %)"),
        ("params", 1000, 1000, "1.00 k of at most 1.00 k parameters (100.0 %)"),
        ("params", 1000, 1000.1, "1.00 k of at most 1.00 k parameters (100.1 %)"),
        ("bytes", 100e3, 98.5e3, "98.5 kB of at most 100 kB (98.5 %)"),
        ("ratio", 0.3, 0.25, "25.0 % of the units removed, 30 % asked for"),
        ("macs", None, None, ""),
    ],
)
def test_what_a_budget_came_to(kind: str, target: float | None, reached: float | None, text: str) -> None:
    assert budget_text({"kind": kind, "target": target, "reached": reached}) == text
    assert budget_text({"kind": kind}) == ""  # of a report from before this was told


def test_a_ratio_says_what_it_is_of() -> None:
    budget = {"kind": "ratio", "target": 0.5, "reached": 0.495, "counted": "layers' inputs"}
    assert budget_text(budget) == "49.5 % of the layers' inputs removed, 50 % asked for"


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
