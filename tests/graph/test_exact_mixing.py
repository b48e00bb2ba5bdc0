"""Operations on the dim of the heads, with features inside each head: 5 tokens, 4 heads, 4 features.

What mixes heads position by position must find the same features in every head; what only moves heads must not care.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def heads(m: Any, x: Any) -> Any:
    return m.i(x).view(-1, 5, 4, 4)


def image(m: Any, x: Any) -> Any:
    """Features as channels; tokens and heads as positions."""
    return heads(m, x).permute(0, 3, 1, 2)


def back(y: Any) -> Any:
    return y.permute(0, 2, 3, 1).flatten(2)


TOGETHER: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "softmax": (lambda m, x: heads(m, x).softmax(2).flatten(2), 16),
    "cumulative sum": (lambda m, x: heads(m, x).cumsum(2).flatten(2), 16),
    "largest": (lambda m, x: heads(m, x).topk(2, 2).values.flatten(2), 8),
    "sorted": (lambda m, x: heads(m, x).sort(2)[0].flatten(2), 16),
    "average pooling": (lambda m, x: back(F.avg_pool2d(image(m, x), (1, 2))), 8),
    "resampling": (lambda m, x: back(F.interpolate(image(m, x), scale_factor=(1.0, 2.0), mode="bilinear")), 32),
    "instance norm": (lambda m, x: back(F.instance_norm(image(m, x))), 16),
    "batch norm of the batch": (lambda m, x: back(F.batch_norm(image(m, x), None, None, training=True)), 16),
    "mean": (lambda m, x: heads(m, x).mean(2), 4),
    "maximum": (lambda m, x: heads(m, x).max(2)[0], 4),
    "convolution": (lambda m, x: back(F.conv2d(image(m, x), m.kernel, padding=1)), 24),
    "matrix product": (lambda m, x: (m.square @ heads(m, x)).flatten(2), 16),
    "index": (lambda m, x: heads(m, x)[:, :, [1, 0, 2]].flatten(2), 12),
    "layer norm": (lambda m, x: F.layer_norm(heads(m, x).transpose(2, 3), (4,)).transpose(2, 3).flatten(2), 16),
}
APART: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "activation": (lambda m, x: torch.relu(heads(m, x)).flatten(2), 16),
    "sliced": (lambda m, x: heads(m, x)[:, :, 1:3].flatten(2), 8),
    "maximum over tokens": (lambda m, x: heads(m, x).amax(1).flatten(1), 16),
    "batch norm of the training": (lambda m, x: back(m.norm(image(m, x))), 16),
    "weights of all": (lambda m, x: (heads(m, x) * m.square).flatten(2), 16),
}
WIDTHS = {name: width for name, (_, width) in APART.items()}
# Parameters by feature, shared by all heads, tie the heads for a reason of their own.
SHARED = ("batch norm of the training", "weights of all")


def network(lab: Any, forward: Callable[[Any, Any], Any], width: int) -> nn.Module:
    module: nn.Module = lab.network(
        lambda m, x: m.o(forward(m, x)),
        i=nn.Linear(16, 16),
        o=nn.Linear(width, 2),
        norm=nn.BatchNorm2d(4),
        square=nn.Parameter(torch.zeros(4, 4)),
        kernel=nn.Parameter(torch.zeros(6, 4, 3, 3)),
    )
    return module


@pytest.mark.parametrize("name", TOGETHER)
def test_heads_that_mix_lose_the_same_features(lab: Any, name: str) -> None:
    module = network(lab, *TOGETHER[name])
    lab.check(module, torch.randn(2, 5, 16), groups={"i": 4}, zeroing=False)


@pytest.mark.parametrize("name", APART)
def test_heads_that_do_not_mix_choose_for_themselves(lab: Any, name: str) -> None:
    coupling = lab.check(network(lab, *APART[name]), torch.randn(2, 5, 16), groups={})
    assert max(g.size for g in coupling.groups) == (4 if name in SHARED else WIDTHS[name])
