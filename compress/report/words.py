"""What a report says in sentences, for every form of it: plain text, to be escaped by whoever writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.table import budget_text
from compress.wording import amount, plural

_EPOCH = ("epoch", "loss", "validation loss", "validation accuracy", "learning rate")

# (field of "verification", what it compares)
CHECKS = (
    ("slice", "slice, before any refit, against the masked original, in float64"),
    ("reload", "bundle, loaded in a new process, against what was written"),
    ("onnx", "ONNX Runtime against the model"),
)


def model_name(report: Mapping[str, Any]) -> str:
    """The file's name without its folders."""
    return str(report["input"]["path"]).replace("\\", "/").rstrip("/").rpartition("/")[2]


def sentence(report: Mapping[str, Any]) -> str:
    """What is left, at which accuracy, and how fast: "420 of 1.00 k parameters are left (42.0 %), ..."."""
    before, after = report["before"], report["after"]
    left = f"{amount(after['params'])} of {amount(before['params'])} parameters are left" + _share(
        after["params"], before["params"]
    )
    if after["nonzero"] is not None and after["nonzero"] < 0.99 * after["params"]:
        left += f", {amount(after['nonzero'])} of them not zero"
    if before["macs"] and after["macs"] is not None:
        left += f", {amount(after['macs'])} of {amount(before['macs'])} MACs" + _share(after["macs"], before["macs"])
    told = [left]
    if before["accuracy"] and after["accuracy"]:
        a, b = (100 * each["accuracy"]["accuracy"] for each in (after, before))
        told.append(f"accuracy is {a:.2f} % on {plural(after['accuracy']['count'], 'test sample')} (before: {b:.2f} %)")
    if report["speedup"] is not None:
        told.append(f"it runs {report['speedup']:.2f} times as fast")
    return "; ".join(told) + "."


def _share(after: float, before: float) -> str:
    return f" ({100 * after / before:.1f} %)" if before else ""


def budget_sentence(report: Mapping[str, Any]) -> str:
    """What was asked for and what it came to; "" where that is not known."""
    budget = report["method"]["budget"]
    text = budget_text(budget) if budget else ""
    if not text:
        return ""
    return f"Budget: {text}" + ("; the allowed widths come no nearer." if budget.get("limited") else ".")


def trained_sentence(report: Mapping[str, Any]) -> str:
    """How many epochs there were and whose weights these are; "" without a training or where that is not known."""
    best, history = report.get("best_epoch"), report["history"]
    if best is None or not history:
        return ""
    kept = (
        f"the weights of epoch {best} were kept" if best else "none was better than the start, whose weights were kept"
    )
    start = report.get("untrained_accuracy")
    before = "" if start is None else f" Before it, {100 * start:.2f} % of the test samples were right."
    return f"{epochs(report)} of training: {kept}.{before}"


def epochs(report: Mapping[str, Any]) -> str:
    """How many epochs a training had, that in which nothing was trained not counted: "8 epochs"."""
    return plural(report["history"][-1].get("epoch", len(report["history"])), "epoch")


def epoch_columns(report: Mapping[str, Any]) -> list[str]:
    """What epochs tell: the usual numbers first, as the epoch in which nothing was trained has few of them."""
    there = dict.fromkeys(key for each in report["history"] for key in each)
    usual = [name for name in _EPOCH if name in there]
    return [*usual, *(name for name in there if name not in usual)]


def checks(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what was compared, largest relative difference) of every check; of ONNX and of the class where that was run."""
    found, module = report["verification"], report.get("module")
    told = [
        (label, "not run" if found[key] is None else f"{found[key]:.1e}")
        for key, label in CHECKS
        if key != "onnx" or found[key] is not None  # a bundle is often exported later, or never
    ]
    if module:
        told.append((f"{module['file']} in the original class, against what was written", f"{module['reload']:.1e}"))
    return told


def pins_by_reason(report: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Where something keeps its size, by the operation that holds it and the reason."""
    where: dict[tuple[str, str], list[str]] = {}
    for each in report["pins"]:
        where.setdefault((each["op"], each["reason"]), []).append(each["where"])
    return where


def cell(value: Any) -> str:
    """One value of a table, with four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def data_line(report: Mapping[str, Any]) -> str:
    """What the samples served for: "64 calibration, 100 test"."""
    data = report["data"] or {}
    return ", ".join(f"{data[key]:,} {key}" for key in ("train", "calibration", "test") if data.get(key) is not None)


def device(report: Mapping[str, Any]) -> str:
    """Where it ran: "cpu, 1 thread"."""
    threads = report["threads"]
    if threads is None:
        return str(report["device"])
    return f"{report['device']}, {plural(threads, 'thread')}"
