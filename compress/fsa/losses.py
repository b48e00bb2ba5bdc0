"""Losses of a margin u: large where u is small, and how steep and how curved they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Loss:
    """A loss of the margin.

    Attributes:
        value: L(u).
        slope: Its derivative, never above 0 but for ``square``.
        curvature: The largest second derivative; 1 where there is none or where it is large but local: such losses
            have bounded slopes, so no step makes them diverge.
    """

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    curvature: float


_H = 0.1  # half the width of the bend in the Huber-SVM loss


def _logistic(u: Floats) -> Floats:
    return np.logaddexp(0, -u)


def _logistic_slope(u: Floats) -> Floats:
    half = np.tanh(u / 2)  # cannot overflow
    return (half - 1) / 2


def _huber(u: Floats) -> Floats:
    bend = np.square(1 + _H - u) / (4 * _H)
    return np.where(u > 1 + _H, 0, np.where(u < 1 - _H, 1 - u, bend))


LOSSES = {
    "logistic": Loss(_logistic, _logistic_slope, 0.25),
    "hinge": Loss(lambda u: np.maximum(1 - u, 0), lambda u: np.where(u < 1, -1.0, 0.0), 1.0),
    "huber-svm": Loss(_huber, lambda u: np.clip((u - 1 - _H) / (2 * _H), -1, 0), 1.0),
    "lorenz": Loss(
        lambda u: np.log1p(np.square(np.minimum(u - 1, 0))),
        lambda u: 2 * np.minimum(u - 1, 0) / (1 + np.square(np.minimum(u - 1, 0))),
        2.0,
    ),
    "square": Loss(lambda u: np.square(u - 1), lambda u: 2 * (u - 1), 2.0),
}
