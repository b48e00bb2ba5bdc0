"""The curves of a training: losses, accuracy and whatever else an epoch tells, with the best epoch marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.figures import Figure, Series

_LOSSES = {"loss": "training", "validation loss": "validation"}
_ACCURACY = "validation accuracy"
_NO_CURVE = ("epoch", "learning rate")
_LONGER = {"nonzero": "parameters that are not zero"}
_MOST = 6  # curves of other numbers


def curves(report: Mapping[str, Any]) -> list[Figure]:
    """One figure for the losses, one for the accuracy and one for every further number of the epochs."""
    history, best = report["history"], report.get("best_epoch")
    figures = []
    losses = [_series(history, key, label) for key, label in _LOSSES.items()]
    losses = [each for each in losses if each.y]
    if losses:
        marked = _marked(losses[-1], best)
        figures.append(Figure("training-loss", "Loss", "epoch", "loss", (*losses, *marked)))
    accuracy = _series(history, _ACCURACY, "", 100.0)
    if accuracy.y:
        title = "Accuracy on the validation samples"
        figures.append(
            Figure("training-accuracy", title, "epoch", "accuracy (%)", (accuracy, *_marked(accuracy, best)), top=100.0)
        )
    known = {*_LOSSES, _ACCURACY, *_NO_CURVE}
    others = [key for key in dict.fromkeys(key for each in history for key in each) if key not in known]
    for number, key in enumerate(others):
        line = _series(history, key, "")
        if line.y and len(figures) < _MOST + 2:
            told = _LONGER.get(key, key)
            title = told[:1].upper() + told[1:]
            figures.append(Figure(f"training-{number}", title, "epoch", told, (line, *_marked(line, best))))
    return figures


def _series(history: Sequence[Mapping[str, Any]], key: str, label: str, factor: float = 1.0) -> Series:
    """One number of every epoch that has it."""
    points = [
        (float(each.get("epoch", index)), factor * float(each[key]))
        for index, each in enumerate(history)
        if isinstance(each.get(key), (int, float))
    ]
    return Series(label, [x for x, _ in points], [y for _, y in points])


def _marked(line: Series, best: int | None) -> tuple[Series, ...]:
    """The best epoch as a point of its own; none where that is not known or not on the line."""
    point = next((y for x, y in zip(line.x, line.y, strict=True) if x == best), None)
    return () if point is None or best is None else (Series(f"kept: epoch {best}", [float(best)], [point], "points"),)
