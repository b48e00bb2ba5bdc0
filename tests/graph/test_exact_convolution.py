"""Convolutional building blocks: the groups found in them, and slices that are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


@dataclass(frozen=True)
class Block:
    """A forward function, its parts, the sizes of the groups to find, and whether zeroing can check it.

    Zeroing weights is no reference where statistics over channels count the removed ones.
    """

    name: str
    forward: Callable[..., Any]
    parts: Callable[[], dict[str, Any]]
    groups: dict[str, int]
    zeroing: bool = True


def in_order(m: Any, x: Any) -> Any:
    for layer in m.layers:
        x = layer(x)
    return x


def chain(name: str, layers: Callable[[], list[nn.Module]], groups: dict[str, int], zeroing: bool = True) -> Block:
    named = {f"layers.{n}": size for n, size in groups.items()}
    return Block(name, in_order, lambda: {"layers": nn.ModuleList(layers())}, named, zeroing)


def residual(m: Any, x: Any) -> Any:
    a = F.relu(m.a(x))
    return m.head((a + m.c(F.relu(m.b(a)))).mean((2, 3)))


def squeeze_excite(m: Any, x: Any) -> Any:
    a = m.a(x)
    return m.head(a * torch.sigmoid(m.expand(F.relu(m.reduce(a.mean((2, 3), keepdim=True))))))


def dense(m: Any, x: Any) -> Any:
    a = m.a(x)
    return m.head(torch.cat([a, F.relu(m.b(a)), x], 1))


def unet(m: Any, x: Any) -> Any:
    a = F.relu(m.a(x))
    b = F.relu(m.b(F.max_pool2d(a, 2)))
    return m.head(torch.cat([a, F.interpolate(b, scale_factor=2.0, mode="bilinear")], 1))


def option_a(m: Any, x: Any) -> Any:
    a = F.relu(m.a(x))
    shortcut = F.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return m.head(F.relu(m.b(a) + shortcut))


def shuffle(m: Any, x: Any) -> Any:
    x = m.b(m.a(x))
    n, c, h, w = x.shape
    return m.head(m.c(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


def film(m: Any, x: Any) -> Any:
    gain, shift = m.f(x.mean((2, 3))).chunk(2, 1)
    return m.head(F.relu(m.a(x) * (1 + gain[..., None, None]) + shift[..., None, None]))


def csp(m: Any, x: Any) -> Any:
    a, b = m.a(x).chunk(2, 1)
    return m.head(torch.cat([a, b, m.b(b)], 1))


def uneven_split(m: Any, x: Any) -> Any:
    a, b, c = m.a(x).split([6, 6, 4], 1)
    return m.head(a * b + m.b(c))


def picked(m: Any, x: Any) -> Any:
    a = m.a(x)
    return m.head(a.narrow(1, 2, 4) * a.select(1, 0)[:, None])


def in_place(m: Any, x: Any) -> Any:
    a = m.a(x)
    F.relu_(a)
    a += m.b(x)
    a.mul_(2.0)
    a[:, :4] += m.c(x)
    return m.head(a)


def written_into_zeros(m: Any, x: Any) -> Any:
    out = torch.zeros(x.shape[0], 16, 8, 8)
    out[:, :8] = m.a(x)
    out[:, 8:] = m.b(x)
    return m.head(out)


def selective_kernel(m: Any, x: Any) -> Any:
    both = torch.stack([m.a(x), m.b(x)], 1)
    weights = m.f(both.sum(1).mean((2, 3))).view(x.shape[0], 2, 8, 1, 1).softmax(1)
    return m.head((both * weights).sum(1))


BLOCKS = [
    chain(
        "chain",
        lambda: [conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(384, 5)],
        {"0": 8, "3": 6},
    ),
    chain(
        "depthwise", lambda: [conv(3, 8), conv(8, 8, groups=8), nn.ReLU6(), conv(8, 4, 1), conv(4, 2)], {"0": 8, "3": 4}
    ),
    chain(
        "depth multiplier",
        lambda: [conv(3, 8), conv(8, 16, groups=8), nn.ReLU(), conv(16, 2)],
        {"0.blocks": 8, "1": 16},
    ),
    chain(
        "grouped",
        lambda: [conv(3, 8), conv(8, 12, groups=2), nn.ReLU(), conv(12, 2)],
        {"0": 8, "0.blocks": 2, "1": 12},
    ),
    chain(
        "transposed",
        lambda: [
            conv(3, 8),
            nn.ConvTranspose2d(8, 6, 2, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 4, 2, bias=False),
            conv(4, 2),
        ],
        {"0": 8, "1": 6, "3": 4},
    ),
    chain(
        "transposed grouped",
        lambda: [conv(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.ReLU(), conv(12, 2)],
        {"0": 8, "0.blocks": 2, "1": 12},
    ),
    chain("channel shuffle op", lambda: [conv(3, 8), nn.ChannelShuffle(2), conv(8, 8, groups=2), conv(8, 2)], {"2": 8}),
    chain(
        "pixel shuffle",
        lambda: [conv(3, 16), nn.PixelShuffle(2), conv(4, 6), nn.PixelUnshuffle(2), conv(24, 2)],
        {"0.blocks": 4, "2": 6},
    ),
    chain("gated", lambda: [conv(3, 16), nn.GLU(1), conv(8, 2)], {"0": 8}),
    chain("parametric relu", lambda: [conv(3, 8), nn.PReLU(8), conv(8, 4), nn.PReLU(), conv(4, 2)], {"0": 8, "2": 4}),
    chain("instance norm", lambda: [conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), conv(8, 2)], {"0": 8}),
    chain(
        "group norm",
        lambda: [conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 4), nn.GroupNorm(1, 4), conv(4, 2)],
        {"0": 8, "0.blocks": 2, "3": 4},
        zeroing=False,
    ),
    chain(
        "padding modes",
        lambda: [conv(3, 8, padding_mode="reflect"), conv(8, 4, padding_mode="circular"), conv(4, 2)],
        {"0": 8, "1": 4},
    ),
    Block(
        "residual",
        residual,
        lambda: {"a": conv(3, 8), "b": conv(8, 6), "c": conv(6, 8), "head": nn.Linear(8, 2)},
        {"a": 8, "b": 6},
    ),
    Block(
        "squeeze-excite",
        squeeze_excite,
        lambda: {"a": conv(3, 8), "reduce": conv(8, 4, 1), "expand": conv(4, 8, 1), "head": conv(8, 2)},
        {"a": 8, "reduce": 4},
    ),
    Block("dense", dense, lambda: {"a": conv(3, 8), "b": conv(8, 4), "head": conv(15, 2)}, {"a": 8, "b": 4}),
    Block("unet", unet, lambda: {"a": conv(3, 8), "b": conv(8, 6), "head": conv(14, 2)}, {"a": 8, "b": 6}),
    Block(
        "option A shortcut",
        option_a,
        lambda: {"a": conv(3, 4), "b": conv(4, 8, stride=2), "head": conv(8, 2)},
        {"a": 4, "b": 4},
    ),
    Block(
        "channel shuffle",
        shuffle,
        lambda: {"a": conv(3, 8), "b": conv(8, 8, groups=2), "c": conv(8, 8, groups=2), "head": conv(8, 2)},
        {"c": 8},
    ),
    Block(
        "maxout",
        lambda m, x: m.head(m.a(x).unflatten(1, (4, 2)).amax(2)),
        lambda: {"a": conv(3, 8), "head": conv(4, 2)},
        {"a.blocks": 4},
        zeroing=False,  # the larger of what is kept, not of what is kept and zero
    ),
    Block("film", film, lambda: {"f": nn.Linear(3, 16), "a": conv(3, 8), "head": conv(8, 2)}, {"f": 8}),
    Block(
        "cross stage partial",
        csp,
        lambda: {"a": conv(3, 8), "b": conv(4, 4), "head": conv(12, 2)},
        {"a": 4, "a#2": 4, "b": 4},
    ),
    Block(
        "uneven split",
        uneven_split,
        lambda: {"a": conv(3, 16), "b": conv(4, 6), "head": conv(6, 2)},
        {"a": 6, "a#2": 4},
    ),
    Block("narrow and select", picked, lambda: {"a": conv(3, 8), "head": conv(4, 2)}, {"a": 3, "a#2": 4}),
    Block(
        "in place",
        in_place,
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "c": conv(3, 4), "head": conv(8, 2)},
        {"a": 4, "a#2": 4},
    ),
    Block(
        "written into zeros",
        written_into_zeros,
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "head": conv(16, 2)},
        {"a": 8, "b": 8},
    ),
    Block(
        "selective kernel",
        selective_kernel,
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "f": nn.Linear(8, 16), "head": conv(8, 2)},
        {"a": 8},
    ),
    Block(
        "shared layer",
        lambda m, x: m.head(m.b(F.relu(m.b(m.a(x))))),
        lambda: {"a": conv(3, 8), "b": conv(8, 8), "head": conv(8, 2)},
        {"a": 8},
    ),
    Block(
        "interleaved",
        lambda m, x: m.head(torch.stack([m.a(x), m.b(x)], 2).flatten(1, 2)),
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "head": conv(16, 2)},
        {"a": 8},
    ),
    Block(
        "repeated",
        lambda m, x: m.head(m.a(x).repeat(1, 2, 1, 1) + m.b(x).repeat_interleave(2, 1)),
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "head": conv(16, 2)},
        {"a": 4},
    ),
    Block(
        "flipped",
        lambda m, x: m.head(m.a(x).flip(1) + m.b(x)),
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "head": conv(8, 2)},
        {"a": 8},
    ),
    Block(
        "mean over channels",
        lambda m, x: m.head(m.a(x) * m.a(x).mean(1, keepdim=True)),
        lambda: {"a": conv(3, 8), "head": conv(8, 2)},
        {"a": 8},
        zeroing=False,
    ),
    Block(
        "bilinear pooling",
        lambda m, x: m.head(torch.einsum("bihw,bjhw->bij", m.a(x), m.b(x)).flatten(1)),
        lambda: {"a": conv(3, 6), "b": conv(3, 4), "head": nn.Linear(24, 2)},
        {"a": 6, "b": 4},
    ),
    Block(
        "padded channels",
        lambda m, x: m.head(F.pad(m.a(x), (0, 0, 0, 0, 1, 3), value=2.0) + m.b(x)),
        lambda: {"a": conv(3, 8), "b": conv(3, 12), "head": conv(12, 2)},
        {"a": 8, "b": 4},
    ),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.name)
def test_slice_is_exact(lab: Any, block: Block) -> None:
    module = lab.network(block.forward, **block.parts())
    lab.check(module, torch.randn(2, 3, 8, 8), groups=block.groups, zeroing=block.zeroing)
