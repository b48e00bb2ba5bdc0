"""The comparison of before and after, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, str, str]


def summary_rows(report: Mapping[str, Any]) -> list[Row]:
    """(what, before, after, change) of everything in report.json that was measured on both sides or on one.

    A side that was not measured is "-", and so is a change that cannot be told.
    """
    before, after = report["before"], report["after"]
    rows: list[Row] = []
    for key, label, unit in _SIZES:
        if before[key] is not None or after[key] is not None:
            rows.append((label, amount(before[key], unit), amount(after[key], unit), change(before[key], after[key])))
    if before["accuracy"] or after["accuracy"]:
        rows.append(_accuracy(before["accuracy"], after["accuracy"]))
    if before["latency"] or after["latency"]:
        rows.extend(_latency(report))
    for name, size in after["files"].items():
        rows.append((name, amount(before["files"].get(name), "B"), amount(size, "B"), "-"))
    return rows


_SIZES = (
    ("params", "parameters", ""),
    ("nonzero", "parameters that are not zero", ""),
    ("macs", "MACs per sample", ""),
    ("bytes", "weights on disk", "B"),
)


def _accuracy(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Row:
    texts = [
        f"{100 * each['accuracy']:.2f} % [{100 * each['low']:.2f}, {100 * each['high']:.2f}]" if each else "-"
        for each in (before, after)
    ]
    measured = before or after
    label = f"accuracy ({measured['count']:,} samples, 95 %)" if measured else "accuracy"
    points = f"{100 * (after['accuracy'] - before['accuracy']):+.2f} points" if before and after else "-"
    return (label, texts[0], texts[1], points)


def _latency(report: Mapping[str, Any]) -> list[Row]:
    before, after = report["before"]["latency"], report["after"]["latency"]
    measured = after or before
    setting = f"batch {measured['batch']}, {_count(measured['threads'], 'thread')}, {measured['runs']} runs"
    faster = f"{report['speedup']:.2f}x as fast" if report["speedup"] is not None else "-"
    rows = []
    for key, label, told in (("p50", f"latency, median ({setting})", faster), ("p90", "latency, 90 % below", "-")):
        rows.append((label, *(f"{1e3 * each[key]:.3g} ms" if each else "-" for each in (before, after)), told))
    return rows  # type: ignore[return-value]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def amount(value: float | None, unit: str = "") -> str:
    """A count with three digits and a decimal prefix: 11689512 is "11.7 M"; "-" for None."""
    if value is None:
        return "-"
    if value >= 1000:
        value = float(f"{value:.3g}")  # first, so that 999999 is 1.00 M
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            digits = 2 if value < 10 * factor else 1 if value < 100 * factor else 0
            return f"{value / factor:.{digits}f} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()


def change(before: float | None, after: float | None) -> str:
    """What is left and how much less it is: "0.42x (-58.0 %)"; "-" where one is missing."""
    if before is None or after is None or not before:
        return "-"
    return f"{after / before:.3g}x ({100 * (after - before) / before:+.1f} %)"
