from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.graph import layer_weights, macs, parameters


def counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of one of the two samples by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2 // 2


def attention(m: Any, x: Any) -> Any:
    q, k, v = (f(x).view(-1, 5, 4, 6).transpose(1, 2) for f in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return m.o(torch.matmul(y, m.w))


def test_macs_by_hand(lab: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)).eval()
    coupling = lab.analyse(module, torch.randn(2, 3, 6, 6))
    assert macs(coupling) == 16 * 8 * 27 + 128 * 2
    assert parameters(coupling) == 8 * 27 + 8 + 256 + 2
    alive = coupling.alive({"0": [0, 5]})
    assert macs(coupling, alive) == 16 * 6 * 27 + 96 * 2
    assert parameters(coupling, alive) == 6 * 27 + 6 + 192 + 2


@pytest.mark.parametrize("kind", ["convolutions", "attention", "einsum"])
def test_macs_are_half_the_operations_torch_counts(lab: Any, kind: str) -> None:
    if kind == "convolutions":
        layers = [nn.Conv2d(4, 8, 3, 2), nn.Conv2d(8, 12, 3, groups=4), nn.ConvTranspose2d(12, 8, 2, groups=2)]
        module, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 4 * 4, 3)).eval(), torch.randn(2, 4, 11, 11)
    elif kind == "attention":
        parts = {n: nn.Linear(16, 24) for n in "qkv"} | {"o": nn.Linear(24, 3), "w": nn.Parameter(torch.randn(24, 24))}
        module, x = lab.network(attention, **parts), torch.randn(2, 5, 16)
    else:
        weight = nn.Parameter(torch.randn(6, 16))
        module, x = lab.network(lambda m, x: torch.einsum("bti,oi->bto", x, m.w), w=weight), torch.randn(2, 5, 16)
    coupling = lab.analyse(module, x)
    assert macs(coupling) == pytest.approx(counted(module, x), rel=0.01)
    alive = lab.removal(coupling, 0.5)
    if coupling.groups:
        sliced = lab.cut(module, coupling, 0.5).sliced
        assert macs(coupling, alive) == pytest.approx(counted(sliced, x), rel=0.01)
        assert parameters(coupling, alive) == sum(p.numel() for p in sliced.parameters())


def test_weights_of_layers_in_graph_order(lab: Any) -> None:
    parts = {n: nn.Linear(16, 24) for n in "qkv"} | {"o": nn.Linear(24, 3), "w": nn.Parameter(torch.randn(24, 24))}
    coupling = lab.analyse(lab.network(attention, **parts), torch.randn(2, 5, 16))
    assert layer_weights(coupling) == ["q.weight", "k.weight", "v.weight", "w", "o.weight"]


def test_tied_weights_count_once(lab: Any) -> None:
    layer = nn.Linear(4, 4)
    coupling = lab.analyse(nn.Sequential(layer, nn.ReLU(), layer).eval(), torch.randn(2, 4))
    assert parameters(coupling) == 20
