from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.calibration.layers import Layers, is_layer
from compress.graph import trace


class Various(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(2, 4, 3, padding="same")
        self.plain = nn.Conv2d(4, 4, (3, 1), stride=2, padding=(1, 0), groups=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.tied = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.tied.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.plain(self.same(x))).mean((2, 3))
        x = self.other(self.tied(x))
        out: Tensor = nn.functional.linear(x, self.other.bias.reshape(2, 2).repeat(1, 2), None)
        return out


def test_obstacles_shapes_and_shifts() -> None:
    layers = Layers(trace(Various().eval(), (torch.randn(2, 2, 6, 6),)).module, {"plain.weight"})
    nodes = [n for n in layers.module.graph.nodes if is_layer(n)]
    assert [layers.obstacle(n) for n in nodes] == [
        "padding by name",
        "its weight is frozen",
        "its weight is shared",
        "its weight is shared",
        "its weight is computed",
    ]
    assert [layers.readable(n) for n in nodes] == [False, True, True, True, False]
    plain = layers.layer(nodes[1])
    assert (plain.groups, plain.stride, plain.padding, plain.dilation) == (2, (2, 2), (1, 0), (1, 1))
    assert layers.shift(nodes[0]) == ("same.bias", 1)
    assert layers.shift(nodes[1]) == ("norm.running_mean", -1)
    assert layers.shift(nodes[4]) is None
