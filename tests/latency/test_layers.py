from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph import Coupling
from compress.latency.layers import Layer, Sizes
from compress.latency.table import at_batch

Analysed = Callable[..., Coupling]


def layers(coupling: Coupling, removed: Any = None, batch: int = 1) -> list[Layer]:
    return sizes(coupling, batch).layers(coupling.alive(removed or {}))


def sizes(coupling: Coupling, batch: int = 1) -> Sizes:
    return Sizes(coupling, at_batch(coupling.program.inputs, batch))


def shapes(found: list[Layer]) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    return [(layer.op, layer.shapes) for layer in found]


def test_convolutions_at_batch_one_and_after_a_cut(analysed: Analysed, convnet: nn.Module) -> None:
    coupling = analysed(convnet, torch.zeros(2, 3, 6, 6))
    first, second, _, last = layers(coupling)
    assert shapes([first, last]) == [
        ("conv", ((1, 3, 6, 6), (8, 3, 3, 3))),
        ("linear", ((1, 288), (2, 288))),
    ]
    assert dict(second.attributes) == {"strides": (1, 1), "dilations": (1, 1), "groups": 1, "pads": (1, 1, 1, 1)}
    cut = layers(coupling, {"0": np.arange(3), "4": np.arange(6)}, batch=5)
    assert shapes(cut) == [
        ("conv", ((5, 3, 6, 6), (5, 3, 3, 3))),
        ("conv", ((5, 5, 6, 6), (8, 5, 3, 3))),
        ("conv", ((5, 8, 6, 6), (2, 8, 3, 3))),
        ("linear", ((5, 72), (2, 72))),
    ]


def test_strides_groups_transposed_and_padding_by_word(analysed: Analysed) -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Conv2d(8, 8, 3, groups=8, padding=(1, 0)),
        nn.Conv2d(8, 4, 4, padding="same", dilation=(1, 2)),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    )
    coupling = analysed(net, torch.zeros(2, 4, 9, 9))
    strided, depthwise, same, transposed = layers(coupling)
    assert strided["strides"] == (2, 2) and strided.shapes == ((1, 4, 9, 9), (8, 4, 3, 3))
    assert depthwise["groups"] == 8 and depthwise["pads"] == (1, 0, 1, 0)
    assert same["pads"] == (1, 3, 2, 3)  # 3 and 6 around the kernel, what is odd at the end
    assert transposed.op == "conv_transpose" and transposed.shapes == ((1, 4, 4, 2), (4, 3, 3, 3))
    assert transposed["groups"] == 2 and transposed["output_padding"] == (1, 1)
    cut = layers(coupling, {"0": np.arange(5)})
    assert cut[1]["groups"] == 3 and cut[1].shapes == ((1, 3, 4, 4), (3, 1, 3, 3))


class Attention(nn.Module):
    """Heads of queries, keys and values that are folded into the batch, and a product with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Parameter(torch.ones(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.view(-1, 5, 2, 8).transpose(1, 2).flatten(0, 1) for y in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).view(-1, 2, 5, 8).transpose(1, 2).flatten(2)
        return torch.matmul(y, self.out)


def test_attention_with_heads_in_the_batch(analysed: Analysed) -> None:
    found = layers(analysed(Attention(), torch.zeros(2, 5, 16)))
    assert shapes(found) == [
        ("linear", ((1, 5, 16), (48, 16))),
        ("attention", ((2, 5, 8),) * 3),
        ("matmul", ((1, 5, 16), (16, 16))),
    ]
    assert found[2]["constant"]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(x)
        return self.cell(steps[:, -1])


def test_recurrent_layers_and_cells(analysed: Analysed) -> None:
    found = layers(analysed(Recurrent(), torch.zeros(2, 7, 6)))
    assert shapes(found) == [
        ("lstm", ((7, 1, 6), (2, 4))),
        ("lstm", ((7, 1, 8), (2, 4))),
        ("linear", ((1, 8), (9, 8))),
        ("linear", ((1, 3), (9, 3))),
    ]


def test_elements_of_everything_that_is_no_layer(analysed: Analysed, convnet: nn.Module) -> None:
    coupling = analysed(convnet, torch.zeros(2, 3, 6, 6))
    whole = sizes(coupling)
    relu, flat = 8 * 36, 8 * 36
    assert whole.elements(coupling.alive({})) == 2 * relu + flat
    assert whole.elements(coupling.alive({"0": np.arange(4)})) == relu // 2 + relu + flat
