from __future__ import annotations

import numpy as np
import pytest

from compress.fsa.losses import LOSSES


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("logistic", {0.0: np.log(2), 1.0: np.log(1 + np.exp(-1))}),
        ("hinge", {-1.0: 2, 0.5: 0.5, 1.0: 0, 3.0: 0}),
        ("huber-svm", {-1.0: 2, 0.9: 0.1, 1.0: 0.025, 1.1: 0, 3.0: 0}),
        ("lorenz", {-1.0: np.log(5), 0.0: np.log(2), 1.0: 0, 3.0: 0}),
        ("square", {-1.0: 4, 1.0: 0, 3.0: 4}),
    ],
)
def test_values(name: str, values: dict[float, float]) -> None:
    np.testing.assert_allclose(LOSSES[name].value(np.array(list(values))), list(values.values()), atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_the_derivatives(name: str) -> None:
    u = np.linspace(-4.03, 4.03, 500)
    found = LOSSES[name].slope(u)
    step = 1e-6
    expected = (LOSSES[name].value(u + step) - LOSSES[name].value(u - step)) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "lorenz", "square"])
def test_curvature_is_the_largest(name: str) -> None:
    u = np.linspace(-6, 6, 100_001)
    curvature = np.diff(LOSSES[name].slope(u)) / np.diff(u)
    assert curvature.max() == pytest.approx(LOSSES[name].curvature, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_large_margins_are_finite(name: str) -> None:
    u = np.array([-1e4, 1e4], np.float32)
    assert np.isfinite(LOSSES[name].slope(u)).all()
