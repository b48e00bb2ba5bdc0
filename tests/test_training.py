from __future__ import annotations

from typing import Any

import pytest

from compress.errors import InputError
from compress.training import Running, Training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"lr": 0.0}, "--lr must be above 0, got 0"),
        ({"lr": float("nan")}, "--lr must be above 0, got nan"),
        ({"momentum": 1.0}, "--momentum must be from 0 to below 1, got 1"),
        ({"label_smoothing": -0.1}, "--label-smoothing must be from 0 to below 1, got -0.1"),
        ({"weight_decay": -1.0}, "--weight-decay must be at least 0, got -1"),
        ({"warmup": 2.0}, "--warmup must be between 0 and 1, got 2"),
        ({"validation": 0.0}, "--validation must be above 0 and at most 0.5, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"accumulate": 0}, "--accumulate must be at least 1, got 0"),
        ({"patience": -1}, "--patience must be at least 0, got -1"),
        ({"temperature": 0.0}, "--temperature must be above 0, got 0"),
        ({"distill_weight": 1.5}, "--distill-weight must be between 0 and 1, got 1.5"),
        ({"clip_norm": -1.0}, "--clip-norm must be at least 0, got -1"),
        ({"optimizer": "adam"}, "--optimizer 'adam' is unknown"),
        ({"precision": "fp8"}, "--precision 'fp8' is unknown"),
        ({"augment": "mixup"}, "--augment 'mixup' is unknown"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Training(**settings)
    assert str(caught.value) == message


def test_saves_need_steps() -> None:
    with pytest.raises(InputError, match="--save-every must be at least 1, got 0"):
        Running(save_every=0)


def test_the_usual_learning_rate_is_the_optimizers() -> None:
    assert (Training().peak, Training(optimizer="adamw").peak, Training(lr=0.5).peak) == (0.02, 0.001, 0.5)
    assert Training().resolved()["lr"] == 0.02


def test_gradients_are_clipped_unless_it_is_said_otherwise() -> None:
    assert Training().resolved()["clip_norm"] == 2.0
