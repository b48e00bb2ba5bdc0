"""The estimator: scikit-learn's own checks, and its place in pipelines."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from compress.fsa import FSAClassifier


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [FSAClassifier(iterations=60), FSAClassifier(1.0, iterations=60), FSAClassifier(2, batch_size=64, iterations=20)]
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, ...]:
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    return tuple(parts)


def test_half_of_the_pixels_of_digits(digits: tuple[Any, ...]) -> None:
    x, x_test, y, y_test = digits
    half = FSAClassifier(0.5).fit(x, y)
    whole = FSAClassifier(1.0).fit(x, y)
    assert half.coef_.shape == (10, 64) and half.intercept_.shape == (10,)
    assert len(half.selected_) == half.support_.sum() == 32
    assert half.score(x_test, y_test) > 0.9
    assert half.score(x_test, y_test) > whole.score(x_test, y_test) - 0.04
    np.testing.assert_allclose(half.decision_function(x_test), x_test @ half.coef_.T + half.intercept_)


def test_two_classes_with_names(digits: tuple[Any, ...]) -> None:
    x, _, y, _ = digits
    names = np.where(y[y < 2] == 0, "zero", "one")
    model = FSAClassifier(5).fit(x[y < 2], names)
    assert model.classes_.tolist() == ["one", "zero"]
    assert model.coef_.shape == (1, 64)
    assert model.score(x[y < 2], names) > 0.98
    scores = model.decision_function(x[y < 2])
    assert scores.ndim == 1
    assert ((scores > 0) == (model.predict(x[y < 2]) == "zero")).all()


def test_as_a_selector_in_a_pipeline(digits: tuple[Any, ...]) -> None:
    x, x_test, y, y_test = digits
    pipeline = make_pipeline(FSAClassifier(20, iterations=60), LogisticRegression(max_iter=2000)).fit(x, y)
    selector = pipeline[0]
    assert np.array_equal(selector.transform(x_test), x_test[:, selector.selected_])
    assert np.array_equal(selector.get_support(indices=True), selector.selected_)
    assert selector.get_feature_names_out().tolist() == [f"x{i}" for i in selector.selected_]
    assert pipeline.score(x_test, y_test) > 0.88


def test_keep_is_searched(digits: tuple[Any, ...]) -> None:
    x, _, y, _ = digits
    search = GridSearchCV(FSAClassifier(iterations=40), {"keep": [2, 0.5]}, cv=2).fit(x, y)
    assert search.best_params_ == {"keep": 0.5}


def test_wrong_settings_are_said_at_fit(digits: tuple[Any, ...]) -> None:
    x, _, y, _ = digits
    with pytest.raises(ValueError, match="loss must be one of"):
        FSAClassifier(loss="absolute").fit(x, y)
    with pytest.raises(ValueError, match="at least two classes"):
        FSAClassifier().fit(x, np.ones(len(x)))


def test_the_rest_does_not_wait_for_scikit_learn() -> None:
    code = "import sys, compress.fsa; assert 'sklearn' not in sys.modules; compress.fsa.FSAClassifier(0.5)"
    subprocess.run([sys.executable, "-c", code], check=True)
