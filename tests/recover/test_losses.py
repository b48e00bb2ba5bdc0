"""What a training makes small, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from compress.errors import InputError
from compress.recover.losses import summed_loss
from compress.training import Training


def test_each_class_a_yes_or_no_of_its_own() -> None:
    scores, targets = torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]]), torch.tensor([1, 2])

    def cost(score: float, wanted: float) -> float:
        p = 1 / (1 + math.exp(-score))
        return -(wanted * math.log(p) + (1 - wanted) * math.log(1 - p))

    expected = (cost(0, 0) + cost(2, 1) + cost(-1, 0) + cost(1, 0) + cost(0, 0) + cost(0, 1)) / 3
    assert float(summed_loss(scores, targets, "bce")) == pytest.approx(expected)
    smooth = (cost(0, 0.1) + cost(2, 0.8) + cost(-1, 0.1) + cost(1, 0.1) + cost(0, 0.1) + cost(0, 0.8)) / 3
    assert float(summed_loss(scores, targets, "bce", 0.3)) == pytest.approx(smooth)


def test_cross_entropy() -> None:
    scores, targets = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]), torch.tensor([1, 0])
    assert float(summed_loss(scores, targets, "cross-entropy")) == pytest.approx(math.log(4 / 3) + math.log(2))


@pytest.mark.parametrize("distill", ["logits", "features"])
def test_there_is_nothing_to_learn_from_scores_of_a_softmax(distill: str) -> None:
    with pytest.raises(InputError, match=f"--distill {distill}: with --loss bce"):
        Training(loss="bce", distill=distill)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--loss 'mse' is unknown"):
        Training(loss="mse")  # type: ignore[arg-type]
    assert Training(loss="bce").distill == "auto"
