from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.fsa import FSASettings, compression_factor
from compress.fsa.factor import _folds

QUICK = FSASettings(iterations=30)


def four_of_ten(samples: int = 400) -> tuple[Any, Any]:
    """Two bits, each told by two features with noise, and six features of noise alone."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (samples, 2))
    signal = np.repeat(2 * bits - 1, 2, axis=1) + 0.9 * rng.standard_normal((samples, 4))
    return np.hstack([signal, rng.standard_normal((samples, 6))]), bits @ [2, 1]


def test_the_smallest_that_is_good_enough() -> None:
    x, y = four_of_ten()
    found = compression_factor(x, y, (0.1, 0.2, 0.4, 0.7), 0.02, settings=QUICK)
    assert found.factor == 0.4
    assert list(found.accuracies) == [0.1, 0.2, 0.4, 0.7, 1.0]
    assert found.accuracies[0.1] < found.accuracies[0.2] < found.accuracies[0.4] - 0.02


def test_the_tolerance_decides() -> None:
    x, y = four_of_ten()
    assert compression_factor(x, y, (0.1, 0.4), 1.0, settings=QUICK).factor == 0.1
    assert compression_factor(x, y, (0.1,), 0.0, settings=QUICK).factor == 1.0


def test_labels_of_any_kind_and_the_same_answer_again() -> None:
    x, y = four_of_ten(120)
    words = np.array(["d", "a", "c", "b"])[y]
    one, other = (compression_factor(x, labels, (0.4,), settings=QUICK) for labels in (words, words))
    assert one == other


def test_folds_hold_out_every_sample_once_and_every_class_alike() -> None:
    y = np.repeat([0, 1, 2], [10, 20, 33])
    held = np.stack(list(_folds(y, 3, 0)))
    assert (held.sum(0) == 1).all()
    counts = np.array([np.bincount(y[h], minlength=3) for h in held])
    assert (np.ptp(counts, axis=0) <= 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"candidates": (0.0,)}, "candidates"), ({"candidates": (1.2,)}, "candidates"), ({"tolerance": -0.1}, "tolerance"),
     ({"folds": 1}, "folds"), ({"folds": 41}, "folds"), ({"y": np.zeros(40)}, "two classes")],
)  # fmt: skip
def test_out_of_range(arguments: dict[str, Any], message: str) -> None:
    x, y = four_of_ten(40)
    with pytest.raises(ValueError, match=message):
        compression_factor(x, **{"y": y, **arguments})
