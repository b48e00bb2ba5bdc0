"""Pairs of bars for a page: what was measured, before and after, as shares of the longer one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress import wording
from compress.report.table import confident, counterpart
from compress.wording import amount, change, milliseconds, plural

_RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
_COUNTS = (
    ("params", "Parameters", ""),
    ("nonzero", "Non-zero parameters", ""),
    ("macs", "MACs per sample", ""),
    ("bytes", "Weights in memory", "B"),
)


@dataclass(frozen=True)
class Bar:
    """One side: its value as a text, its length, and an interval where it has one."""

    text: str
    share: str
    low: str | None = None
    high: str | None = None

    @property
    def drawn(self) -> tuple[str, str | None, str | None]:
        return self.share, self.low, self.high


@dataclass(frozen=True)
class Pair:
    """Both sides of one measure; ``change`` and ``note`` are texts."""

    label: str
    before: Bar
    after: Bar
    change: str = ""
    note: str = ""


def share(fraction: float) -> str:
    """A length in SVG: 0.42 is "42.0%"."""
    return f"{100 * min(max(fraction, 0.0), 1.0):.4g}%"


def pairs(report: Mapping[str, Any]) -> list[Pair]:
    """Every measure that was taken on both sides; parameters that are not zero only where many are."""
    before, after = report["before"], report["after"]
    found = []
    for key, label, unit in _COUNTS:
        zeros = any((side.get("nonzero") or 0) < 0.99 * side["params"] for side in (before, after))
        if key != "nonzero" or zeros:
            found += _counted(label, before.get(key), after.get(key), unit)
    written = after["files"].get(counterpart(before["files"], after["files"]))
    found += _counted("File on disk", sum(before["files"].values()) or None, written, "B")
    if before["accuracy"] and after["accuracy"]:
        found += _accuracy(before["accuracy"], after["accuracy"])
    if before["latency"] and after["latency"]:
        found.append(_latency(report))
    return found


def _counted(label: str, before: float | None, after: float | None, unit: str) -> list[Pair]:
    if before is None or after is None:
        return []
    most = max(before, after) or 1
    bars = [Bar(amount(each, unit), share(each / most)) for each in (before, after)]
    return [Pair(label, bars[0], bars[1], change(before, after))]


def _accuracy(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Pair]:
    sides = (before, after)
    bars = [Bar(f"{100 * s['accuracy']:.2f} %", share(s["accuracy"]), share(s["low"]), share(s["high"])) for s in sides]
    ranges = [f"{100 * s['low']:.1f} to {100 * s['high']:.1f} %" for s in sides]
    note = f"{plural(after['count'], 'test sample')}; 95 % intervals {ranges[0]} and {ranges[1]}"
    found = [Pair("Accuracy", bars[0], bars[1], wording.points(before["accuracy"], after["accuracy"]), note)]
    sure = [s["confidence"] for s in sides if s.get("confidence") is not None]
    if len(sure) == 2:
        bars = [Bar(f"{100 * each:.2f} %", share(each)) for each in sure]
        note = f"probability of the class where it is right; mean of {confident(before, after)}"
        found.append(Pair("Confidence", bars[0], bars[1], wording.points(*sure), note))
    return found


def _latency(report: Mapping[str, Any]) -> Pair:
    before, after = report["before"]["latency"], report["after"]["latency"]
    most = max(before["p50"], after["p50"]) or 1
    bars = [Bar(milliseconds(each["p50"]), share(each["p50"] / most)) for each in (before, after)]
    threads = plural(after["threads"], "thread")
    runtime = _RUNTIMES.get(after.get("runtime", "torch"), after.get("runtime", ""))
    note = f"median of {plural(after['runs'], 'run')} in turns, batch {after['batch']}, {threads}, {runtime}"
    faster = "" if report["speedup"] is None else f"{report['speedup']:.2f} times as fast"
    return Pair("Latency", bars[0], bars[1], faster, note)
