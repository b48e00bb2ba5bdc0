from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from torch import Tensor, nn

from compress.graph import trace
from compress.recover.distill import Teacher, feature_loss, shared_features, soft_loss


def test_soft_loss_by_hand() -> None:
    # softmax([2 log 3, 0] / 2) = (3/4, 1/4), softmax([0, 0]) = (1/2, 1/2)
    target, scores = torch.tensor([[2 * log(3), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5))
    assert float(soft_loss(scores, target, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(soft_loss(target, target, 2.0)) == pytest.approx(0.0, abs=1e-6)
    twice = soft_loss(scores.repeat(2, 1), target.repeat(2, 1), 2.0)  # summed over samples
    assert float(twice) == pytest.approx(2 * expected, rel=1e-6)


def test_feature_loss_by_hand() -> None:
    one, other = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]])  # (1, 1, 2), one shape
    assert float(feature_loss([one], [other])) == pytest.approx(0.6**2 + 0.2**2, rel=1e-5)
    # (1, C, 2) with C = 1 and 2: means of squares (9, 16) and (0.5, 0.5), normalised
    wide = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    norm, half = sqrt(9**2 + 16**2), sqrt(0.5)
    expected = (9 / norm - half) ** 2 + (16 / norm - half) ** 2
    assert float(feature_loss([one], [wide])) == pytest.approx(expected, rel=1e-5)


class Blocks(nn.Module):
    """Two resolutions, a sum at each."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, inner, 3, padding=1), nn.Conv2d(inner, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.head(torch.relu(self.second(h) + 1).mean((2, 3)))


def test_features_of_the_same_place_are_found_whatever_their_width() -> None:
    inputs = (torch.randn(2, 1, 8, 8),)
    small, large = (trace(Blocks(width).eval(), inputs).module for width in (2, 6))
    pairs = shared_features(small, large, inputs)
    shapes = {n.name: tuple(n.meta["val"].shape) for n in small.graph.nodes if "val" in n.meta}
    assert [shapes[name] for name, _ in pairs] == [(2, 2, 8, 8), (2, 4, 4, 4)]
    scores, features = Teacher(large, [twin for _, twin in pairs])(*inputs)
    assert [tuple(f.shape) for f in features] == [(2, 6, 8, 8), (2, 4, 4, 4)]
    assert not scores.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(scores, large(*inputs))
