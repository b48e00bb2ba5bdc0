from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.fsa import FSASettings, select_features
from compress.fsa.losses import LOSSES
from compress.schedules import annealed


def blobs(classes: int, informative: int, noise: int, samples: int = 300, seed: int = 0) -> tuple[Any, Any]:
    """Every informative feature lifts one class; all features are of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    centres = 3.0 * (np.arange(classes)[:, None] == np.arange(informative) % classes)
    x = np.hstack([centres[y], np.zeros((samples, noise))]) + rng.standard_normal((samples, informative + noise))
    return x * 10.0 ** rng.integers(-3, 3, x.shape[1]) + rng.standard_normal(x.shape[1]) * 50, y


def written_out(x: Any, y: Any, chosen: FSASettings) -> tuple[Any, Any, Any]:
    """The algorithm for two classes on standardised features, sample by sample, feature by feature."""
    n, features = x.shape
    loss = LOSSES[chosen.loss]
    step = chosen.lr / (loss.curvature * max(np.linalg.eigvalsh(x.T @ x / n).max(), 1) + chosen.ridge)
    alive = list(range(features))
    weight, speed, intercept, drift = np.zeros(features), np.zeros(features), 0.0, 0.0
    for i in range(1, chosen.iterations + 1):
        gradient, shift = chosen.ridge * weight, 0.0
        for row, label in zip(x, 2 * y - 1, strict=True):
            margin = label * (sum(row[j] * weight[j] for j in alive) + intercept)
            slope = float(loss.slope(np.array(margin))) * label / n
            gradient = gradient + slope * row
            shift += slope
        speed, drift = chosen.momentum * speed - step * gradient, chosen.momentum * drift - step * shift
        weight, intercept = weight + speed, intercept + drift
        count = annealed(i, chosen.iterations, features, chosen.kept(features), chosen.mu)
        alive = sorted(sorted(alive, key=lambda j: -(weight[j] ** 2))[:count])
        weight = np.array([w if j in alive else 0.0 for j, w in enumerate(weight)])
    return weight, intercept, alive


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_the_algorithm_written_out(loss: str) -> None:
    x, y = blobs(2, 3, 3, samples=40)
    x = (x - x.mean(0)) / x.std(0)
    chosen = FSASettings(keep=2, loss=loss, iterations=12, mu=1.0)
    weight, intercept, alive = written_out(x, y, chosen)
    found = select_features(x, y, 2, chosen)
    assert found.selected.tolist() == alive
    # The bound of the steps comes from 20 power iterations, which end a little below the eigenvalue
    np.testing.assert_allclose(found.weight[0], weight, rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(found.intercept[0], intercept, rtol=0.05, atol=1e-3)


def test_first_step_by_hand() -> None:
    """One feature of ±1 with the labels' signs, square loss: slope -2 y, largest eigenvalue 1, step 1 / 2."""
    x, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    found = select_features(x, y, 2, FSASettings(keep=1, loss="square", iterations=1, ridge=0.0))
    assert found.weight.tolist() == [[1.0]]
    assert found.intercept.tolist() == [0.0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_features_that_matter_are_found(loss: str, classes: int) -> None:
    x, y = blobs(classes, 3, 20)
    found = select_features(x, y, classes, FSASettings(keep=3, loss=loss, iterations=60))
    assert found.selected.tolist() == [0, 1, 2]
    assert (found.classes(x) == y).mean() > 0.8
    assert (found.weight[:, 3:] == 0).all() and (found.weight[:, :3] != 0).all()


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(1, 30), st.integers(2, 4))
def test_so_many_features_are_kept(keep: float, features: int, classes: int) -> None:
    x, y = blobs(classes, 1, features - 1, samples=24)
    found = select_features(x, y, classes, FSASettings(keep=keep, iterations=5))
    assert len(found.selected) == max(1, int(keep * features))
    assert (np.diff(found.selected) > 0).all()


def test_keep_as_a_number_and_as_a_fraction() -> None:
    assert [FSASettings(keep=k).kept(10) for k in (0.25, 1.0, 1, 3, 3.0, 99)] == [2, 10, 1, 3, 3, 10]
    assert FSASettings(keep=cast(float, np.float32(0.5))).kept(10) == 5


def test_scale_and_offset_of_features_do_not_matter() -> None:
    x, y = blobs(3, 2, 6)
    moved = x * np.logspace(-2, 2, 8) + np.arange(8)
    one, other = (select_features(data, y, 3, FSASettings(keep=4, iterations=40)) for data in (x, moved))
    assert one.selected.tolist() == other.selected.tolist()
    np.testing.assert_allclose(one.scores(x), other.scores(moved), rtol=1e-6, atol=1e-9)


def test_constant_features_go_first_and_equals_from_the_last() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    signal = y + rng.standard_normal(60) / 4
    x = np.stack([np.full(60, 0.1), signal, signal, signal, np.full(60, 1e6)], 1).astype(np.float32)
    found = select_features(x, y, 2, FSASettings(keep=2, iterations=10))
    assert found.selected.tolist() == [1, 2]
    assert np.isfinite(found.weight).all() and np.isfinite(found.intercept).all()
    all_constant = select_features(x[:, [0, 4]], y, 2, FSASettings(keep=1, iterations=10))
    assert all_constant.selected.tolist() == [0]
    assert (all_constant.weight == 0).all()


def test_batches_are_drawn_by_the_seed() -> None:
    x, y = blobs(3, 3, 10)
    chosen = FSASettings(keep=3, iterations=15, batch_size=32)
    one, again, other = (select_features(x, y, 3, chosen, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.weight, again.weight)
    assert not np.array_equal(one.weight, other.weight)
    assert one.selected.tolist() == other.selected.tolist() == [0, 1, 2]


def test_single_precision_stays_single() -> None:
    x, y = blobs(3, 3, 3)
    found = select_features(x.astype(np.float32), y, 3, FSASettings(iterations=5))
    assert found.weight.dtype == found.intercept.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [{"keep": 0.0}, {"keep": -1}, {"keep": 1.5}, {"loss": "huber"}, {"iterations": 0}, {"mu": -1.0}, {"lr": 0.0},
     {"momentum": 1.0}, {"ridge": -1.0}, {"batch_size": 0}, {"keep": float("nan")}, {"mu": float("nan")}],
)  # fmt: skip
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FSASettings(**wrong)
