"""Feature selection with annealing: a linear model is trained while its weakest features are dropped step by step.

Barbu, She, Ding and Gramajo: Feature Selection with Annealing for Computer Vision and Big Data Learning, 2017
(arXiv:1310.2880), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.fsa.losses import LOSSES, Floats, Loss
from compress.schedules import annealed

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FSASettings:
    """How the model is trained; see :class:`compress.fsa.FSAClassifier`.

    Raises:
        ValueError: A value is out of its range.
    """

    keep: float = 0.5
    loss: str = "lorenz"
    iterations: int = 300
    mu: float = 10.0
    lr: float = 1.0
    momentum: float = 0.9
    ridge: float = 1e-4
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if not (self.keep >= 1 and self.keep == int(self.keep)) and not 0 < self.keep < 1:
            raise ValueError(f"keep must be a fraction above 0 or a whole number of features, not {self.keep}")
        for name, low in (("iterations", 1), ("mu", 0), ("ridge", 0)):
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {self.momentum}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")

    def kept(self, features: int) -> int:
        """How many features are left of so many: at least one; 1.0 as a fraction means all."""
        if self.keep < 1 or (self.keep == 1 and isinstance(self.keep, float)):
            return max(1, int(self.keep * features))
        return min(int(self.keep), features)


@dataclass(frozen=True)
class Selection:
    """The trained model; K is 1 for two classes.

    Attributes:
        weight: (K, features), for inputs as they were given; 0 for features that were dropped.
        intercept: (K,).
        selected: The features that are left, sorted.
    """

    weight: Floats
    intercept: Floats
    selected: Ints

    def scores(self, x: Floats) -> Floats:
        """(samples, K) of samples (samples, features)."""
        scores: Floats = x[:, self.selected] @ self.weight[:, self.selected].T + self.intercept
        return scores

    def classes(self, x: Floats) -> Ints:
        """Class numbers of samples (samples, features)."""
        scores = self.scores(x)
        return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(np.int64)


def select_features(x: Floats, y: Ints, classes: int, settings: FSASettings, seed: Any = 0) -> Selection:
    """Train a linear classifier and keep the features that weigh most.

    Every step moves the weights of standardised features down the gradient and then drops those features whose squared
    weights, summed over the classes, are smallest; equals go from the last. A step is ``lr`` over a bound of the
    loss's curvature, so that ``lr`` means the same for any data. More than two classes are told apart by the sum of the
    losses of all margins of the right class over the others (Vapnik).

    Args:
        x: (samples, features), finite, float32 or float64.
        y: (samples,), class numbers from 0.
        classes: Number of classes, at least 2.
        settings: How.
        seed: Of the order of batches; without batches nothing is random. Anything that ``numpy.random.default_rng``
            takes.
    """
    features = x.shape[1]
    mean, scale, x = _standardised(x)
    loss, outputs = LOSSES[settings.loss], 1 if classes == 2 else classes
    bound = loss.curvature * (1 if outputs == 1 else classes) * max(_largest_eigenvalue(x), 1.0)
    step = settings.lr / (bound + settings.ridge)
    left = np.arange(features)
    weight, speed = np.zeros((2, outputs, features), x.dtype)
    intercept, drift = np.zeros((2, outputs), x.dtype)
    rng = np.random.default_rng(seed)
    for i in range(1, settings.iterations + 1):
        for rows in _batches(len(x), settings.batch_size, rng):
            slopes = _slopes(loss, x[rows] @ weight.T + intercept, y[rows])
            gradient = slopes.T @ x[rows] / len(slopes) + settings.ridge * weight
            speed = settings.momentum * speed - step * gradient
            drift = settings.momentum * drift - step * slopes.mean(0)
            weight, intercept = weight + speed, intercept + drift
        count = annealed(i, settings.iterations, features, settings.kept(features), settings.mu)
        if count < len(left):
            stays = np.sort(np.argsort(-np.square(weight).sum(0), kind="stable")[:count])
            x, weight, speed, left = np.ascontiguousarray(x[:, stays]), weight[:, stays], speed[:, stays], left[stays]
    full = np.zeros((outputs, features), x.dtype)
    full[:, left] = weight / scale[left]
    return Selection(full, intercept - full @ mean, left)


def _standardised(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Means, standard deviations (1 for constant features) and samples of mean 0 and variance 1, or 0."""
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    constant = (x.max(0) == x.min(0)) | (deviation == 0)
    scale = np.where(constant, 1, deviation).astype(x.dtype)
    mean = mean.astype(x.dtype)
    return mean, scale, np.where(constant, 0, (x - mean) / scale).astype(x.dtype)


def _largest_eigenvalue(x: Floats) -> float:
    """Of the second moments of samples, by power iteration from a fixed start; a little too low at worst."""
    vector = np.asarray(np.random.default_rng(0).standard_normal(x.shape[1]), x.dtype)
    value = 0.0
    for _ in range(20):
        product = x.T @ (x @ vector) / len(x)
        value = float(np.linalg.norm(product) / np.linalg.norm(vector))
        if value == 0:
            break
        vector = product / np.linalg.norm(product)
    return value


def _batches(samples: int, size: int | None, rng: np.random.Generator) -> Iterator[Any]:
    if size is None or size >= samples:
        yield slice(None)
        return
    order = rng.permutation(samples)
    for start in range(0, samples, size):
        yield order[start : start + size]


def _slopes(loss: Loss, scores: Floats, y: Ints) -> Floats:
    """Derivatives of each sample's loss by its scores, (samples, K)."""
    if scores.shape[1] == 1:
        sign: Floats = (2 * y - 1).astype(scores.dtype).reshape(-1, 1)
        return np.asarray(loss.slope(sign * scores) * sign, scores.dtype)
    rows = np.arange(len(y))
    margins: Floats = scores[rows, y].reshape(-1, 1) - scores
    slopes: Any = -loss.slope(margins).astype(scores.dtype)
    slopes[rows, y] = 0
    slopes[rows, y] = -slopes.sum(1)
    return slopes
