"""How many features a linear classifier needs: the compression factor that FSA finds before a network is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.fsa.annealing import FSASettings, Ints, select_features
from compress.fsa.losses import Floats

CANDIDATES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class CompressionFactor:
    """The answer of :func:`compression_factor`.

    Attributes:
        factor: The smallest fraction of features that is good enough.
        accuracies: By fraction, 1 among them, the mean accuracy on held-out folds.
    """

    factor: float
    accuracies: Mapping[float, float]


def compression_factor(
    x: Floats,
    y: NDArray[Any],
    candidates: Sequence[float] = CANDIDATES,
    tolerance: float = 0.01,
    *,
    folds: int = 3,
    settings: FSASettings | None = None,
    seed: int = 0,
) -> CompressionFactor:
    """The smallest fraction of the features with which FSA is about as accurate as with all, by cross-validation.

    Resnick: Activation, Dropout, Pruning (2020) takes it as the share of weights that a network needs.

    Args:
        x: (samples, features), finite.
        y: (samples,), labels of any kind.
        candidates: Fractions to try, above 0 and below 1; 1 is always tried.
        tolerance: How far below the accuracy with all features it may be, as a fraction of 1.
        folds: Parts of the samples, each held out once; every class is spread over them.
        settings: Of FSA; its ``keep`` is not used.
        seed: Of the folds and of FSA.

    Raises:
        ValueError: An argument is out of its range.
    """
    if not all(0 < c < 1 for c in candidates):
        raise ValueError(f"candidates must lie between 0 and 1, not {tuple(candidates)}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance}")
    if not 2 <= folds <= len(x):
        raise ValueError(f"folds must be 2 to the number of samples ({len(x)}), not {folds}")
    labels, numbers = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise ValueError("y must hold at least two classes")
    settings = settings or FSASettings()
    found = {}
    for fraction in (*sorted(set(candidates)), 1.0):
        tried = replace(settings, keep=float(fraction))
        found[fraction] = _accuracy(x, numbers, len(labels), tried, folds, seed)
    good = (c for c, accuracy in found.items() if accuracy >= found[1.0] - tolerance)
    return CompressionFactor(next(good), found)


def _accuracy(x: Floats, y: Ints, classes: int, settings: FSASettings, folds: int, seed: int) -> float:
    """Share of the samples that a model trained on the other folds gets right."""
    right = 0
    for held in _folds(y, folds, seed):
        model = select_features(x[~held], y[~held], classes, settings, seed)
        right += int((model.classes(x[held]) == y[held]).sum())
    return right / len(y)


def _folds(y: Ints, folds: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Masks of the held-out samples: in random order, sorted by class, every ``folds``-th."""
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    for first in range(folds):
        held = np.zeros(len(y), dtype=bool)
        held[order[first::folds]] = True
        yield held
