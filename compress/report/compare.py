"""Several reports side by side: as a document, as rows of a table, as CSV, and as a picture with its Pareto front."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from compress.errors import InputError
from compress.figures import Figure, Series
from compress.report.reading import read_report
from compress.report.table import counterpart
from compress.wording import amount, milliseconds, plural

SCHEMA = "compress.comparison/1"
Axis = Literal["macs", "params", "bytes", "latency", "accuracy"]
Row = Mapping[str, Any]

_SIZES = ("params", "macs", "bytes")
_LABELS = {
    "macs": "MACs per sample",
    "params": "parameters",
    "bytes": "file (bytes)",
    "latency": "latency, median (ms)",
    "accuracy": "accuracy (%)",
}
_ACCURACY = ("correct", "count", "accuracy", "low", "high")
HEADER = ("", "model", "method", "parameters", "MACs", "file", "accuracy (95 % interval)", "latency")


def document(paths: Sequence[Path]) -> dict[str, Any]:
    """Reports side by side, in the form of docs/comparison.schema.json.

    The reference of ratios is the original where all were made of the same file, and else the first report. A ratio of
    latencies to the original is that of the report's own run, in which the two took turns.

    Args:
        paths: Bundles or report.json files.

    Raises:
        InputError: One of them is no report.
    """
    reports = [read_report(path) for path in paths]
    common = len({each["input"]["sha256"] for each in reports}) == 1
    rows = [_row(str(path), report, "after") for path, report in zip(paths, reports, strict=True)]
    if common:
        first = reports[0]
        rows.insert(0, {**_row("original", first, "before"), "method": ""})
    speedups = [None, *(each["speedup"] for each in reports)] if common else [None] * len(rows)
    for row, speedup in zip(rows, speedups, strict=True):
        row["ratios"] = _ratios(row, rows[0], speedup, common)
    return {
        "schema": SCHEMA,
        "reference": "original" if common else "first",
        "rows": rows,
        "warnings": _warnings(reports),
    }


def _row(name: str, report: Mapping[str, Any], side: str) -> dict[str, Any]:
    measures, before, after = report[side], report["before"]["files"], report["after"]["files"]
    accuracy, latency = measures["accuracy"], measures["latency"]
    return {
        "name": name,
        "model": Path(report["input"]["path"]).name,
        "method": report["method"]["name"],
        "params": measures["params"],
        "macs": measures["macs"],
        "bytes": after.get(counterpart(before, after)) if side == "after" else sum(before.values()) or None,
        "accuracy": accuracy and {**{key: accuracy[key] for key in _ACCURACY}, "data": _data(report)},
        "latency": latency,
    }


def _ratios(row: Row, first: Row, speedup: float | None, common: bool) -> dict[str, float | None]:
    found = {size: row[size] / first[size] if row[size] and first[size] else None for size in _SIZES}
    if row is first:
        return {**found, "latency": 1.0 if row["latency"] else None}
    if common:
        return {**found, "latency": 1 / speedup if speedup else None}
    both = row["latency"] and first["latency"]
    return {**found, "latency": row["latency"]["p50"] / first["latency"]["p50"] if both else None}


def _warnings(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes numbers of different reports say little of one another."""
    told = []
    measured = [each for each in reports if each["after"]["accuracy"]]
    data = {f"{plural(each['after']['accuracy']['count'], 'sample')} of {_data(each)}" for each in measured}
    if len(data) > 1:
        told.append(f"accuracies cannot be compared: they are of {_listed(data)}")
    timed = [each["after"]["latency"] for each in reports if each["after"]["latency"]]
    settings = {f"{t.get('runtime', 'torch')}, batch {t['batch']}, {plural(t['threads'], 'thread')}" for t in timed}
    if len(settings) > 1:
        told.append(f"latencies cannot be compared: they are of {_listed(settings)}")
    originals = {(each["input"]["sha256"], Path(each["input"]["path"]).name) for each in reports}
    if len(originals) > 1:
        names = ", ".join(sorted({name for _, name in originals}))
        told.append(
            f"the reports are of different models ({names}): ratios are to the first of them, and latencies were not "
            "timed in turns"
        )
    return told


def _data(report: Mapping[str, Any]) -> str:
    return "unknown data" if report["data"] is None else str(report["data"]["spec"])


def _listed(texts: set[str]) -> str:
    return " and ".join(sorted(texts))


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The cells of a table, one row per report, each size with its share of the reference's."""
    return [
        (
            row["name"],
            row["model"],
            row["method"],
            _sized(row, "params"),
            _sized(row, "macs"),
            _sized(row, "bytes", "B"),
            _accuracy(row["accuracy"]),
            _latency(row),
        )
        for row in found["rows"]
    ]


def _sized(row: Row, size: str, unit: str = "") -> str:
    return amount(row[size], unit) + _share(row["ratios"][size])


def _share(ratio: float | None) -> str:
    return "" if ratio is None else f" ({100 * ratio:.1f} %)"


def _accuracy(accuracy: Mapping[str, float] | None) -> str:
    if accuracy is None:
        return "-"
    return f"{100 * accuracy['accuracy']:.2f} % ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})"


def _latency(row: Row) -> str:
    if row["latency"] is None:
        return "-"
    return milliseconds(row["latency"]["p50"]) + _share(row["ratios"]["latency"])


def table_csv(found: Mapping[str, Any]) -> str:
    """Plain numbers, one line per report; latencies in seconds, ratios of the reference as fractions."""
    lines = [_flat(row) for row in found["rows"]]
    written = io.StringIO()
    writer = csv.DictWriter(written, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return written.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    accuracy, latency = row["accuracy"] or {}, row["latency"] or {}
    return {
        **{name: row[name] for name in ("name", "model", "method", *_SIZES)},
        **{name: accuracy.get(name) for name in ("accuracy", "low", "high", "count", "data")},
        **{f"latency_{name}": latency.get(name) for name in ("p50", "p90", "runtime", "batch", "threads")},
        **{f"{name}_ratio": ratio for name, ratio in row["ratios"].items()},
    }


def figure(found: Mapping[str, Any], x: Axis, y: Axis) -> Figure:
    """Two measures of every report against each other, with the front of those that no other beats in both.

    Raises:
        InputError: Both are the same, or no report has both.
    """
    if x == y:
        raise InputError(f"--x and --y are both {x}", "--x macs --y accuracy")
    points = [(_value(row, x), _value(row, y), _short(row["name"])) for row in found["rows"]]
    whole = [(a, b, name) for a, b, name in points if a is not None and b is not None]
    if not whole:
        raise InputError(f"no report has both {x} and {y}", "choose other axes with --x and --y")
    best = front([(_cost(a, x), _cost(b, y)) for a, b, _ in whole])
    series = (
        _series("none better in both", [whole[i] for i in best], "line"),
        _series("others", [each for i, each in enumerate(whole) if i not in best], "points"),
    )
    title = f"{_LABELS[y]} and {_LABELS[x]}"
    return Figure(
        "pareto",
        title[:1].upper() + title[1:],
        _LABELS[x],
        _LABELS[y],
        tuple(s for s in series if s.y),
        top=100.0 if y == "accuracy" else None,
    )


def _short(name: str) -> str:
    """What fits beside a point: the folder of a bundle."""
    path = Path(name)
    return path.resolve().parent.name if path.name == "report.json" else path.name


def front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """The positions, by rising first cost, of those pairs that no other beats: lower in one, no higher in the other.

    Of equal pairs all are on it.
    """

    def beaten(own: tuple[float, float]) -> bool:
        return any(a <= own[0] and b <= own[1] and (a, b) != own for a, b in costs)

    return sorted((i for i, own in enumerate(costs) if not beaten(own)), key=lambda i: (costs[i], i))


def _series(label: str, points: Sequence[tuple[float, float, str]], style: Literal["line", "points"]) -> Series:
    return Series(label, [p[0] for p in points], [p[1] for p in points], style, names=[p[2] for p in points])


def _value(row: Row, axis: Axis) -> float | None:
    if axis == "accuracy":
        return None if row["accuracy"] is None else 100 * float(row["accuracy"]["accuracy"])
    if axis == "latency":
        return None if row["latency"] is None else 1e3 * float(row["latency"]["p50"])
    return None if row[axis] is None else float(row[axis])


def _cost(value: float, axis: Axis) -> float:
    return -value if axis == "accuracy" else value
