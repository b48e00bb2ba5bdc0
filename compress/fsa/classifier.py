"""Feature selection with annealing as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compress.fsa.annealing import FSASettings, select_features


class FSAClassifier(SelectorMixin, ClassifierMixin, BaseEstimator):
    """A linear classifier that keeps the features it needs most; in a pipeline, a selector of features.

    Barbu, She, Ding and Gramajo: Feature Selection with Annealing for Computer Vision and Big Data Learning, 2017
    (arXiv:1310.2880). Features are standardised inside; weights and intercept are those of the features as given.

    Args:
        keep: A fraction (float, 1.0 is all) or number (int) of the features; at least one is kept.
        loss: Of the margin: "lorenz", "logistic", "hinge", "huber-svm" or "square".
        iterations: Steps N; the number of features falls during the first half of them.
        mu: How early features are dropped, at least 0; 0 drops evenly.
        lr: Step over the largest that is safe for smooth losses, about 1.
        momentum: Share of the last step that is done again, 0 to below 1.
        ridge: Weight of the squared weights in the loss.
        batch_size: Samples of a gradient, then a step is an epoch; None takes all samples.
        random_state: Of the order of batches; without batches nothing is random.

    Attributes:
        coef_: (classes, features), or (1, features) for two classes; 0 for features that were dropped.
        intercept_: (classes,) or (1,).
        selected_: The kept features' indices, sorted.
        support_: (features,), True where a feature is kept.
        classes_: The labels.
        n_features_in_: The number of features.
    """

    def __init__(
        self,
        keep: float = 0.5,
        *,
        loss: str = "lorenz",
        iterations: int = 300,
        mu: float = 10.0,
        lr: float = 1.0,
        momentum: float = 0.9,
        ridge: float = 1e-4,
        batch_size: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.keep = keep
        self.loss = loss
        self.iterations = iterations
        self.mu = mu
        self.lr = lr
        self.momentum = momentum
        self.ridge = ridge
        self.batch_size = batch_size
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # scikit-learn's checks ask for an accuracy on two features that needs both
        tags.classifier_tags.poor_score = self.keep != 1.0 or isinstance(self.keep, int)
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Select features and train on them.

        Args:
            X: (samples, features).
            y: (samples,), labels of at least two classes.

        Raises:
            ValueError: A parameter is out of its range, or the data cannot be used.
        """
        samples, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        settings = FSASettings(
            self.keep, self.loss, self.iterations, self.mu, self.lr, self.momentum, self.ridge, self.batch_size
        )
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"FSAClassifier needs at least two classes, and y has one class: {self.classes_[0]!r}")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        found = select_features(samples, numbers, len(self.classes_), settings, seed)
        self.coef_, self.intercept_, self.selected_ = found.weight, found.intercept, found.selected
        self.support_ = np.zeros(samples.shape[1], dtype=bool)
        self.support_[found.selected] = True
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Scores of samples (samples, features): (samples, classes), or (samples,) of the second of two classes."""
        check_is_fitted(self)
        samples: Any = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: NDArray[np.floating[Any]] = samples @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels of samples (samples, features)."""
        scores = self.decision_function(X)
        numbers = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        labels: NDArray[Any] = self.classes_[numbers]
        return labels

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        support: NDArray[np.bool_] = self.support_
        return support
