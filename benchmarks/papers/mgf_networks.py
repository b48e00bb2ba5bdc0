"""The two convolutional networks of the paper behind `standout`, for grey images of 28 x 28 pixels.

Dutta and Mitra, A Minimal Gradient Flow Method for Adaptive Node Pruning in Convolutional Networks, 2020, Table 1. The
table prints strides of 2 and pools of 5 x 5, with which no feature map of 3 x 3 is left for its FC-512; convolutions of
5 x 5 with padding 2 and pools of 2 x 2 do. Its counts are 25 times the filters, as if layers had one input channel.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

Size = Literal["large", "small"]
Activation = Literal["relu", "leaky"]

FILTERS: dict[Size, tuple[int, int, int]] = {"large": (32, 64, 128), "small": (24, 48, 64)}
_SLOPE = 0.01  # of the leaky ReLU, which the paper leaves open


def mgf_network(
    size: Size = "large", nodes: int = 512, activation: Activation = "relu", dropout: float = 0.0
) -> nn.Sequential:
    """Three times convolution, activation and pool, then FC-``nodes`` and FC-10.

    Args:
        size: Which filters.
        nodes: Units of the hidden linear layer, ``fc``.
        activation: Of all layers but the last.
        dropout: Behind the hidden linear layer; the paper's 512 (D) has 0.5.
    """

    def active() -> nn.Module:
        return nn.ReLU() if activation == "relu" else nn.LeakyReLU(_SLOPE)

    network = nn.Sequential()
    channels = 1
    for i, filters in enumerate(FILTERS[size], 1):
        network.add_module(f"conv{i}", nn.Conv2d(channels, filters, 5, padding=2))
        network.add_module(f"active{i}", active())
        network.add_module(f"pool{i}", nn.MaxPool2d(2))
        channels = filters
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(channels * 9, nodes))
    network.add_module("active", active())
    if dropout:
        network.add_module("dropout", nn.Dropout(dropout))
    network.add_module("out", nn.Linear(nodes, 10))
    return network
