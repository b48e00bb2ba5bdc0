"""What a search tried, as a picture, as a page and as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.figures import Figure, Series
from compress.report.markdown import text_table
from compress.wording import amount, milliseconds, plural

_NAMES = {"macs": "MACs", "params": "parameters", "bytes": "weights", "latency": "time in ONNX Runtime"}


def size(objective: str, value: float) -> str:
    """An objective as a text: "2.16 M MACs"."""
    if objective == "bytes":
        return f"{amount(value, 'B')} of weights"
    if objective == "latency":
        return f"{milliseconds(value)} in ONNX Runtime, predicted"
    return f"{amount(value)} {_NAMES.get(objective, objective)}"


def figure(document: Mapping[str, Any]) -> Figure:
    """Accuracy against size: the front, the other candidates, the floor, and the original.

    Args:
        document: Content of search.json.
    """
    whole, floor = document["whole"]["size"], 100 * document["floor"]["accuracy"]
    judged = [t for t in document["trials"] if t["accuracy"] is not None]
    on = {n for n in document["front"]}

    def series(label: str, found: list[Mapping[str, Any]], style: Any) -> Series:
        ordered = sorted(found, key=lambda t: t["size"])
        x, y = ([100 * t["size"] / whole for t in ordered], [100 * t["accuracy"] for t in ordered])
        return Series(label, x, y, style)

    smallest = min((100 * t["size"] / whole for t in judged), default=0.0)
    parts = [
        series("none better in both", [t for t in judged if t["number"] in on], "line"),
        Series("floor", [smallest, 100.0], [floor, floor]),
        series("other candidates", [t for t in judged if t["number"] not in on], "points"),
        series("written", [t for t in judged if t["number"] == document["best"]], "points"),
        Series("original", [100.0], [100 * document["validation"]["accuracy"]], "points"),
    ]
    return Figure(
        "pareto",
        "Size and accuracy of what was tried",
        f"{_NAMES.get(document['objective'], document['objective'])} left (%)",
        f"accuracy on {plural(document['validation']['samples'], 'validation sample')} (%)",
        tuple(part for part in parts if part.y),
        top=100.0,
    )


def rows(document: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header, and for every candidate of the front, the smallest first, what it is and what it gives."""
    header = ("", "trial", "method", "units removed", "by family", "MACs", "parameters", "accuracy")
    found = {each["number"]: each for each in document["trials"]}
    return header, [_row(found[number], document) for number in document["front"]]


def _row(trial: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    whole = document["whole"]
    low, high = (100 * end(trial["fractions"]) for end in (min, max))
    holds = trial["accuracy"] >= document["floor"]["accuracy"] - 1e-9
    return (
        "written" if trial["number"] == document["best"] else "holds" if holds else "",
        str(trial["number"]),
        trial["method"],
        f"{100 * trial['units'] / whole['units']:.1f} %",
        f"{low:.0f} to {high:.0f} %",
        _part(trial, whole, "macs"),
        _part(trial, whole, "params"),
        f"{100 * trial['accuracy']:.2f} %",
    )


def _part(trial: Mapping[str, Any], whole: Mapping[str, Any], what: str) -> str:
    return f"{amount(trial[what])} ({100 * trial[what] / whole[what]:.1f} %)"


def sentence(document: Mapping[str, Any]) -> str:
    """What the accuracies are, and which of them counts."""
    floor, validation = document["floor"], document["validation"]
    failed = sum(each["accuracy"] is None for each in document["trials"])
    text = (
        f"{plural(len(document['trials']), 'candidate')}{f', {failed} of which failed,' if failed else ''} on "
        f"{plural(validation['samples'], 'validation sample')}, where the original has "
        f"{100 * validation['accuracy']:.2f} % and the floor is {100 * floor['accuracy']:.2f} %."
    )
    written = document["written"]
    if written is None:
        return text
    return (
        f"{text}\nWritten: {100 * written['validation']:.2f} % on the validation samples; "
        f"{100 * written['test']['after']:.2f} % on the test samples (original: "
        f"{100 * written['test']['before']:.2f} %)."
    )


def cut_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(family, units, share removed) of what was written; none where nothing was."""
    best = next((each for each in document["trials"] if each["number"] == document["best"]), None)
    if best is None:
        return []
    return [
        (each["name"], str(each["units"]), f"{100 * fraction:.1f} %")
        for each, fraction in zip(document["families"], best["fractions"], strict=True)
    ]


def page(document: Mapping[str, Any]) -> str:
    """search.md."""
    header, told = rows(document)
    parts = [f"# The smallest {document['model']} that holds {100 * document['floor']['accuracy']:.2f} %"]
    parts += [sentence(document), "![size and accuracy](pareto.svg)"]
    parts += ["## None better in both size and accuracy", text_table(header, told, right=(1, 3, 4, 5, 6, 7))]
    cut = cut_rows(document)
    if cut:
        parts += ["## What was removed", text_table(("family", "units", "removed"), cut, right=(1, 2))]
    failed = sorted({each["reason"] for each in document["trials"] if each["reason"]})
    if failed:
        parts += ["## Failed", "\n".join(f"- {reason}" for reason in failed)]
    parts.append(
        "Every candidate was cut and refitted as the result is. The validation samples are a part of the training "
        "samples that scores and refits do not see; what the original was trained on it may know by heart, and of many "
        "candidates the best is flattered a little. The test samples were looked at once, for what was written."
    )
    return "\n\n".join(parts) + "\n"
