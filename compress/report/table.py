"""The comparison of before and after, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from compress import wording
from compress.wording import amount, change, milliseconds, plural

Row = tuple[str, str, str, str]

_WEIGHTS, _ONNX = "model.safetensors", "model.onnx"
_SIZES = (
    ("params", "parameters", ""),
    ("macs", "MACs per sample", ""),
    ("nonzero", "parameters that are not zero", ""),
    ("nominal", "weights of masked layers not zero", ""),
    ("bytes", "weights", "B"),
)


def summary_rows(report: Mapping[str, Any]) -> list[Row]:
    """(what, before, after, change) of everything in report.json that was measured on both sides or on one.

    A side that was not measured is "-", and so is a change that cannot be told. Three sizes are kept apart: what the
    model physically holds, those of all its parameters that are not zero, and the weights that are not zero of the
    layers that a method masks (methods of whole units have none).
    """
    before, after = report["before"], report["after"]
    rows: list[Row] = []
    if report["groups"]:
        units = [sum(each[side] for each in report["groups"]) for side in ("before", "after")]
        rows.append(_compared("units", *units))
    for key, label, unit in _SIZES:
        if before.get(key) is not None or after.get(key) is not None:
            rows.append(_compared(label, before[key], after[key], unit))
    if before["files"] or after["files"]:
        rows.extend(_files(before["files"], after["files"]))
    if before["accuracy"] or after["accuracy"]:
        rows.append(_accuracy(before["accuracy"], after["accuracy"]))
        rows.extend(_confidence(before["accuracy"], after["accuracy"]))
    if before["latency"] or after["latency"]:
        rows.extend(_latency(report))
    return rows


def argument_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(layer, class, "out_channels 16 -> 11, ...") of every constructor that has to be called otherwise."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in (report["module"] or {"arguments": ()})["arguments"]:
        changed = f"{each['name']} {each['before']} -> {each['after']}"
        found.setdefault((each["layer"], each["kind"]), []).append(changed)
    return [(layer, kind, ", ".join(changed)) for (layer, kind), changed in found.items()]


def _compared(label: str, before: float | None, after: float | None, unit: str = "") -> Row:
    return (label, amount(before, unit), amount(after, unit), change(before, after))


def _files(before: Mapping[str, int], after: Mapping[str, int]) -> list[Row]:
    """The file that was given against the bundle's weights, an ONNX model against one; others have no counterpart."""
    of_its_kind = counterpart(before, after)
    rows = [_compared("file on disk", sum(before.values()) or None, after.get(of_its_kind), "B")]
    return rows + [_compared(name, None, size, "B") for name, size in after.items() if name != of_its_kind]


def counterpart(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Which of the files of a bundle is compared with the one that was given: of an ONNX model an ONNX model."""
    onnx = _ONNX in after and before and all(name.endswith(".onnx") for name in before)
    return _ONNX if onnx else _WEIGHTS


def _accuracy(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Row:
    texts = [
        f"{100 * each['accuracy']:.2f} % ({100 * each['low']:.1f} to {100 * each['high']:.1f})" if each else "-"
        for each in (before, after)
    ]
    measured = before or after
    label = f"accuracy, {plural(measured['count'], 'sample')} (95 % interval)" if measured else "accuracy"
    points = wording.points(before["accuracy"], after["accuracy"]) if before and after else "-"
    return (label, texts[0], texts[1], points)


def _confidence(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Row]:
    """Mean probability of the right class; none where reports of earlier versions have no confidences."""
    measured = [each for each in (before, after) if each and each.get("confidence") is not None]
    if not measured:
        return []
    texts = [f"{100 * each['confidence']:.2f} %" if each and each in measured else "-" for each in (before, after)]
    label = f"confidence where right, mean of {confident(before, after)}"
    points = "-"
    if len(measured) == 2:
        points = wording.points(measured[0]["confidence"], measured[1]["confidence"])
    return [(label, texts[0], texts[1], points)]


def confident(*sides: Mapping[str, Any] | None) -> str:
    """How many classes a confidence is the mean of, in words: of both networks where they differ."""
    found = sorted({each["confident_classes"] for each in sides if each and each.get("confidence") is not None})
    return f"{' and '.join(map(str, found))} {'class' if found == [1] else 'classes'}"


def _latency(report: Mapping[str, Any]) -> list[Row]:
    before, after = report["before"]["latency"], report["after"]["latency"]
    measured = after or before
    runtime = measured.get("runtime", "torch")  # reports of earlier versions do not say
    named = "" if runtime == "torch" else f"{runtime}, "
    setting = f"{named}batch {measured['batch']}, {plural(measured['threads'], 'thread')}"
    faster = f"{report['speedup']:.2f}x as fast" if report["speedup"] is not None else "-"
    return [
        (f"latency, median ({setting})", *_times("p50", (before, after)), faster),
        ("latency, 90th percentile", *_times("p90", (before, after)), "-"),
    ]


def _times(key: str, sides: Iterable[Mapping[str, float] | None]) -> tuple[str, str]:
    before, after = (milliseconds(each[key]) if each else "-" for each in sides)
    return before, after


_COUNTED = {"macs": "MACs", "params": "parameters", "bytes": "B"}


def budget_text(budget: Mapping[str, Any]) -> str:
    """What a budget came to: "917 M of at most 921 M MACs (99.6 %)"; "" where that is not known."""
    target, reached = budget.get("target"), budget.get("reached")
    if target is None or reached is None:
        return ""
    if budget["kind"] == "ratio":
        counted = budget.get("counted", "units")  # reports of earlier versions do not say
        return f"{100 * reached:.1f} % of the {counted} removed, {100 * target:.3g} % asked for"
    if budget["kind"] == "latency":
        times = (milliseconds(1e-6 * each) for each in (reached, target))
        return f"{' of at most '.join(times)}{_percent(reached, target)}"
    word = _COUNTED.get(budget["kind"], budget["kind"])
    if word == "B":
        return f"{amount(reached, word)} of at most {amount(target, word)}{_percent(reached, target)}"
    return f"{amount(reached)} of at most {amount(target)} {word}{_percent(reached, target)}"


def _percent(reached: float, target: float) -> str:
    """A share of a budget, rounded away from what would look like all of it, or no more than it."""
    share = 100 * reached / target
    rounded = math.ceil(10 * share - 1e-9) / 10 if share > 100 else math.floor(10 * share + 1e-9) / 10
    return f" ({rounded:.1f} %)"
