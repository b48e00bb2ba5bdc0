from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compress.graph import layer_weights, macs, parameters
from compress.graph.einsum import einsum_macs, einsum_terms


def counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of one of the two samples by torch's own counter, which knows plain attention alone."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
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


def functional(m: Any, x: Any) -> Any:
    """Attention of old: products by hand, with a bias on the scores."""
    q, k, v = (torch.einsum("bti,hid->bhtd", x, w).flatten(0, 1) for w in (m.q, m.k, m.v))
    scores = torch.baddbmm(m.bias, q, k.transpose(1, 2), alpha=0.4)
    mixed = torch.bmm(scores.softmax(-1), v).unflatten(0, (-1, 4)).transpose(1, 2).flatten(2)
    return torch.addmm(m.b, mixed.mean(1), m.o)


def shared_heads(m: Any, x: Any) -> Any:
    q, k, v = (f(x).unflatten(-1, (-1, 6)).transpose(1, 2) for f in (m.q, m.k, m.v))
    return m.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


def factored(m: Any, x: Any) -> Any:
    """A low-rank layer in one einsum, a gate in another, and a sum over one operand alone."""
    x = torch.einsum("...i,ri,or->...o", x, m.down, m.up)
    x = torch.einsum("bto,o->bto", torch.relu(x), m.gate)
    return torch.einsum("bto,pos->btp", x, m.out)


def dynamic(m: Any, x: Any) -> Any:
    """Convolutions whose weights are computed."""
    x = F.conv2d(x, m.a * m.scale, stride=2, padding=1)
    x = F.conv_transpose2d(torch.relu(x), torch.tanh(m.b), stride=2, groups=2)
    return torch.tensordot(x.mean((2, 3)), m.c, dims=([1], [1]))


def cloud(m: Any, x: Any) -> Any:
    x = torch.relu(m.b(torch.relu(m.a(x))))
    return torch.inner(m.c(x).flatten(2).mean(2), m.w)


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


ARCHITECTURES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "attention by hand": (
        functional,
        weights(q=(4, 16, 6), k=(4, 16, 6), v=(4, 16, 6), bias=(1, 5, 5), b=(3,), o=(24, 3)),
        (5, 16),
    ),
    "grouped queries": (
        shared_heads,
        {"q": nn.Linear(16, 24), "k": nn.Linear(16, 12), "v": nn.Linear(16, 12), "o": nn.Linear(24, 3)},
        (5, 16),
    ),
    "einsum of three": (factored, weights(down=(4, 16), up=(12, 4), gate=(12,), out=(3, 12, 2)), (5, 16)),
    "computed convolutions": (
        dynamic,
        weights(a=(8, 3, 3, 3), scale=(8, 1, 1, 1), b=(8, 5, 2, 2), c=(4, 10)),
        (3, 9, 9),
    ),
    "three dims": (
        cloud,
        {
            "a": nn.Conv3d(2, 8, 3),
            "b": nn.ConvTranspose3d(8, 6, 2, 2, groups=2),
            "c": nn.Conv3d(6, 4, 1),
            **weights(w=(3, 4)),
        },
        (2, 6, 5, 6),
    ),
    "depthwise in one dim": (
        lambda m, x: m.c(F.gelu(m.b(m.a(x)))).mean(2),
        {
            "a": nn.Conv1d(4, 12, 1),
            "b": nn.Conv1d(12, 12, 5, padding="same", groups=12),
            "c": nn.ConvTranspose1d(12, 3, 4, 2),
        },
        (4, 16),
    ),
    "products with broadcasting": (
        lambda m, x: (torch.relu(x @ m.a) @ m.b).unsqueeze(1) @ m.c,
        weights(a=(16, 12), b=(12, 10), c=(4, 10, 3)),
        (5, 16),
    ),
    "unfolded convolution": (
        lambda m, x: (m.b @ torch.relu(m.a @ F.unfold(x, 3))).mean(2),
        weights(a=(8, 27), b=(3, 8)),
        (3, 9, 9),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_functional_operations_count_like_layers(lab: Any, name: str) -> None:
    forward, parts, shape = ARCHITECTURES[name]
    module, x = lab.network(forward, **parts), torch.randn(2, *shape)
    coupling = lab.analyse(module, x)
    assert counted(module, x) > 0
    assert macs(coupling) == pytest.approx(counted(module, x), rel=0.01)
    outcome = lab.cut(module, coupling, 0.5)
    assert counted(outcome.sliced, x) < counted(module, x)
    assert macs(coupling, outcome.alive) == pytest.approx(counted(outcome.sliced, x), rel=0.01)


def test_an_einsum_is_counted_along_its_path() -> None:
    sizes = {"a": 100, "b": 2, "c": 100, "d": 3}
    terms = ["ab", "bc", "cd"]
    assert einsum_macs(terms, "ad", sizes, None) == 100 * 2 * 100 + 100 * 100 * 3
    assert einsum_macs(terms, "ad", sizes, [1, 2, 0, 1]) == 2 * 100 * 3 + 100 * 2 * 3
    assert einsum_macs(["ab", "ab"], "ab", sizes, None) == 0  # nothing is summed
    assert einsum_macs(["ab"], "a", sizes, None) == 0
    assert einsum_terms("...i, oi -> ...o", [4, 2]) == (["abci", "oi"], "abco")
    assert einsum_terms("ij,jk", [2, 2]) == (["ij", "jk"], "ik")


def test_weights_of_layers_in_graph_order(lab: Any) -> None:
    parts = {n: nn.Linear(16, 24) for n in "qkv"} | {"o": nn.Linear(24, 3), "w": nn.Parameter(torch.randn(24, 24))}
    coupling = lab.analyse(lab.network(attention, **parts), torch.randn(2, 5, 16))
    assert layer_weights(coupling) == ["q.weight", "k.weight", "v.weight", "w", "o.weight"]


def test_tied_weights_count_once(lab: Any) -> None:
    layer = nn.Linear(4, 4)
    coupling = lab.analyse(nn.Sequential(layer, nn.ReLU(), layer).eval(), torch.randn(2, 4))
    assert parameters(coupling) == 20
