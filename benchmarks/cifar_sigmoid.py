"""A small sigmoid CNN for CIFAR-10, for ``--arch``: two strided convolutions and two linear layers."""

from __future__ import annotations

from torch import nn


def conv_sigmoid() -> nn.Sequential:
    """From (3, 32, 32) to ten class scores; parameters under the numbers 0, 2, 5 and 7."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 4, 2), nn.Sigmoid(), nn.Conv2d(16, 32, 4, 2), nn.Sigmoid(), nn.Flatten()),
        *(nn.Linear(1152, 100), nn.Sigmoid(), nn.Linear(100, 10)),
    )
