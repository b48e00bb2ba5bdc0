"""Accuracy and confidence class by class, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClassRow:
    """One class on both sides; None where it was not measured, or has no sample or none that is right.

    Attributes:
        name: Of the class, its number where it has no name.
        count: Test samples of it.
        accuracy: Fractions right (before, after).
        confidence: Mean largest probability of those that are right (before, after).
    """

    name: str
    count: int
    accuracy: tuple[float | None, float | None]
    confidence: tuple[float | None, float | None]

    @property
    def change(self) -> float | None:
        """Points of accuracy won; None where a side is missing."""
        before, after = self.accuracy
        return None if before is None or after is None else 100 * (after - before)


def class_rows(report: Mapping[str, Any]) -> list[ClassRow]:
    """By number the classes that have test samples; none where the report does not tell classes apart."""
    sides = [(report[side]["accuracy"] or {}).get("per_class") or [] for side in ("before", "after")]
    names = (report["data"] or {}).get("class_names") or []
    found = []
    for index in range(max(map(len, sides))):
        pair = [side[index] if index < len(side) else None for side in sides]
        count = next(each["count"] for each in pair if each is not None)
        if count:
            name = names[index] if index < len(names) else str(index)
            found.append(ClassRow(name, count, _both(pair, _accuracy), _both(pair, _confidence)))
    return found


def _both(pair: list[Any], of: Any) -> tuple[float | None, float | None]:
    before, after = (None if each is None else of(each) for each in pair)
    return before, after


def _accuracy(each: Mapping[str, Any]) -> float:
    return float(each["correct"] / each["count"])


def _confidence(each: Mapping[str, Any]) -> float | None:
    confidence: float | None = each["confidence"]
    return confidence


def percent(fraction: float | None) -> str:
    """0.973 is "97.3"; "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
