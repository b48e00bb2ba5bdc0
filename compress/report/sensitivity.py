"""The sensitivities of a model's families, as a picture, as a page and as rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from compress.figures import Figure, Series
from compress.report.markdown import text_table
from compress.wording import plural

_LINES = 6  # as many as there are colours that can be told apart


def figure(document: Mapping[str, Any]) -> Figure:
    """Accuracy against the share removed: the most sensitive families by name, the others as a band.

    Args:
        document: Content of sensitivity.json.
    """
    base, ranked = 100 * document["accuracy"]["accuracy"], _ranked(document["families"])
    named = ranked if len(ranked) <= _LINES else ranked[: _LINES - 1]
    lines = [_line(each, base) for each in named]
    others = ranked[len(named) :]
    if others:
        lines.append(_band(others, document["ratios"], base))
    return Figure(
        "sensitivity",
        "One family cut, everything else whole",
        "units removed (%)",
        f"accuracy on {plural(document['accuracy']['count'], 'validation sample')} (%)",
        tuple(lines),
        top=100.0,
    )


def _ranked(families: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The most sensitive first, by mean accuracy."""
    return sorted(families, key=lambda each: statistics.fmean(_known(each) or [1.0]))


def _known(family: Mapping[str, Any]) -> list[float]:
    return [p["accuracy"] for p in family["points"] if p["accuracy"] is not None]


def _line(family: Mapping[str, Any], base: float) -> Series:
    known = {p["removed"]: p["accuracy"] for p in family["points"] if p["accuracy"] is not None}
    removed = sorted(known)
    return Series(
        label(family["name"], family["groups"]),
        [0.0, *(100 * count / family["units"] for count in removed)],
        [base, *(100 * known[count] for count in removed)],
    )


def _band(families: Sequence[Mapping[str, Any]], ratios: Sequence[float], base: float) -> Series:
    """Median, lowest and highest accuracy of many families at every ratio."""
    columns = []
    for i, ratio in sorted(enumerate(ratios), key=lambda pair: pair[1]):
        found = [each["points"][i]["accuracy"] for each in families]
        known = [100 * value for value in found if value is not None]
        if known:
            columns.append((100 * ratio, statistics.median(known), min(known), max(known)))
    x, middle, low, high = ([0.0, *(c[0] for c in columns)], *([base, *(c[i] for c in columns)] for i in (1, 2, 3)))
    return Series(f"the other {len(families)}: median and range", x, middle, low=low, high=high)


def label(name: str, groups: Sequence[str]) -> str:
    """The name of a family, and how many more groups it has."""
    return name + (f" (+{len(groups) - 1})" if len(groups) > 1 else "")


def rows(document: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header, and for every family in graph order its accuracies at every ratio."""
    header = ("family", "units", *(f"-{100 * ratio:g} %" for ratio in document["ratios"]))
    told = [
        (
            label(each["name"], each["groups"]),
            str(each["units"]),
            *(percent(point["accuracy"]) for point in each["points"]),
        )
        for each in document["families"]
    ]
    return header, told


def percent(fraction: float | None) -> str:
    """0.9731 is "97.31"; "failed" for None."""
    return "failed" if fraction is None else f"{100 * fraction:.2f}"


def sentence(document: Mapping[str, Any]) -> str:
    """What was judged how, for above the table."""
    accuracy, refitted = document["accuracy"], "refitted" if document["calibrated"] else "not refitted"
    return (
        f"Accuracy in % on {plural(accuracy['count'], 'validation sample')}, {100 * accuracy['accuracy']:.2f} with "
        f"nothing cut (95 % interval {100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}).\n"
        f"Each family is cut alone, by {document['method']}, and {refitted}."
    )


def page(document: Mapping[str, Any]) -> str:
    """sensitivity.md."""
    header, told = rows(document)
    failed = [(each, point["reason"]) for each in document["families"] for point in each["points"] if point["reason"]]
    reasons = {f"{label(each['name'], each['groups'])}: {reason}" for each, reason in failed}
    parts = [
        f"# What the families of {document['model']} bear",
        sentence(document),
        "![accuracy by share removed](sensitivity.svg)",
        text_table(header, told, right=range(1, len(header))),
        "Families in the order of the network. A family is cut by the nearest number of units that can go, and one "
        "always stays: sensitivity.json has the numbers. The samples are a part of the training samples that "
        "fine-tuning keeps out; what the model was trained on it may know by heart.",
        *(["Not judged:\n\n" + "\n".join(f"- {each}" for each in sorted(reasons))] if reasons else []),
    ]
    return "\n\n".join(parts) + "\n"
