"""Sizes by hand, and multiply-adds against torch's own counter."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from compress.counting import count_macs, count_nonzero, count_parameters, tensor_bytes
from compress.errors import InputError, ModelError


def graph_of(module: nn.Module, x: torch.Tensor) -> fx.GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the flat weights of recurrent layers
        exported = torch.export.export(module.eval(), (x,), strict=False).module()
    assert isinstance(exported, fx.GraphModule)
    return exported


def test_counts_by_hand() -> None:
    first, last = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    module = nn.Sequential(first, nn.BatchNorm1d(3), last)
    last.weight = first.weight
    with torch.no_grad():
        first.weight.fill_(1.0)[0] = 0.0
        first.bias.zero_()
    assert count_parameters(module) == 9 + 3 + 3 + 3
    assert count_nonzero(module) == 6 + 0 + 3 + 0  # weight, bias, norm weight, norm bias
    assert tensor_bytes(module) == 18 * 4 + (3 + 3) * 4 + 8  # and the running statistics and the counter


class Einsum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bij,bkj->bik", x, x)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


# Module, input shape with the batch, multiply-adds for one sample
BY_HAND: list[tuple[Callable[[], nn.Module], tuple[int, ...], int]] = [
    (lambda: nn.Linear(16, 3), (2, 16), 16 * 3),
    (lambda: nn.Linear(16, 3), (2, 5, 16), 5 * 16 * 3),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (3, 4, 8, 8), 8 * 8 * 6 * 2 * 9),
    (lambda: nn.ConvTranspose2d(3, 8, 3, stride=2), (2, 3, 7, 7), 7 * 7 * 3 * 8 * 9),
    (Einsum, (2, 5, 16), 5 * 5 * 16),
    (Attention, (2, 4, 5, 8), 2 * 4 * 5 * 5 * 8),
    (Vector, (3, 4, 5), 4 * 5),
    (lambda: nn.LSTM(16, 32, batch_first=True, bidirectional=True), (2, 5, 16), 2 * 5 * 4 * 32 * (16 + 32)),
    (lambda: nn.GRU(16, 32, batch_first=True), (2, 5, 16), 5 * 3 * 32 * (16 + 32)),
    (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        (2, 5, 16),
        5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16,
    ),
]


@pytest.mark.parametrize(("make", "shape", "macs"), BY_HAND)
def test_macs_by_hand(make: Callable[[], nn.Module], shape: tuple[int, ...], macs: int) -> None:
    module, x = make(), torch.randn(shape)
    graph = graph_of(module, x)
    module.train()
    for each in (module, graph):
        count = count_macs(each, (x,))
        assert count.total == macs
        assert sum(count.by_module.values()) == macs
    assert module.training


def test_bilinear() -> None:
    count = count_macs(nn.Bilinear(4, 5, 6), (torch.randn(2, 4), torch.randn(2, 5)))
    assert count.total == 6 * (4 * 5 + 5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_macs_of_known_models(name: str) -> None:
    module = models.get_model(name, weights=None).eval()
    x = torch.randn(2, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    wanted = counter.get_total_flops() / 2 / 2
    for each in (module, graph_of(module, x)):
        assert count_macs(each, (x,)).total == pytest.approx(wanted, rel=0.01)
    if name == "resnet18":
        full = count_macs(module, (torch.randn(1, 3, 224, 224),))
        assert full.total == 1_814_073_344  # the 1.81 G that is usually quoted
        assert full.by_module["conv1"] == 112 * 112 * 64 * 3 * 49
        assert full.by_module["fc"] == 512_000


def test_a_graph_names_the_owner_of_each_weight() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))
    by_module = count_macs(graph_of(module, torch.randn(2, 4)), (torch.randn(2, 4),)).by_module
    assert by_module == {"0": 12, "2.0": 6}


def test_counting_refuses() -> None:
    with pytest.raises(InputError, match="at least one sample"):
        count_macs(nn.Linear(2, 2), ())
    with pytest.raises(ModelError, match="cannot be counted"):
        count_macs(nn.Linear(2, 2), (torch.randn(2, 3),))
