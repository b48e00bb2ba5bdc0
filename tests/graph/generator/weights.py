"""Weights that are computed before they are used: cut, joined, tied, modulated, quantised."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct, conv, dense


def apply(x: Example) -> Any:
    """The functional form of a layer over the channels, for a weight (O, I)."""
    if x.kind != "image":
        return F.linear
    call = getattr(F, f"conv{len(x.space)}d")
    ones = (1,) * len(x.space)
    return lambda y, w, b=None: call(y, w.view(*w.shape, *ones), b)


@construct("any")
def part_of_a_weight(d: Draw, x: Example) -> Step:
    """A slimmable layer: the first rows of a larger weight."""
    call, k, more = apply(x), d.width(), d.pick(1, 3)
    w, b = d.parameter(k + more, x.c + more), d.parameter(k + more)
    return Step(lambda m, y: call(y, m.w[:k, : x.c], m.b[:k]), w=w, b=b)


@construct("any")
def joined_weights(d: Draw, x: Example) -> Step:
    call, k = apply(x), d.width()
    rows = d.chance()
    first = d.parameter(k, x.c) if rows else d.parameter(k, x.c - 1)
    second = d.parameter(3, x.c) if rows else d.parameter(k, 1)

    def forward(m: Any, y: Any) -> Any:
        if rows:  # a bias of zeros for the rows in between, as in some packed attention layers
            bias = torch.cat([m.p, torch.zeros_like(m.q[:, 0])])
            return call(y, torch.cat([m.p2, m.q]), bias)
        return call(y, torch.cat([m.p2, m.q], 1))

    return Step(forward, p=d.parameter(k), p2=first, q=second)


@construct("any")
def flat_weight(d: Draw, x: Example) -> Step:
    """One vector of parameters, viewed as a matrix."""
    call, k = apply(x), d.width()
    return Step(lambda m, y: call(y, m.w.view(k, x.c)), w=d.parameter(k * x.c))


@construct("any")
def sum_of_weights(d: Draw, x: Example) -> Step:
    call, k, gated = apply(x), d.width(), d.chance()
    return Step(
        lambda m, y: call(y, m.a + (torch.sigmoid(m.g) if gated else 0.5) * m.b),
        a=d.parameter(k, x.c), b=d.parameter(k, x.c), g=d.parameter(k, 1),
    )  # fmt: skip


@construct("image")
def merged_kernels(d: Draw, x: Example) -> Step:
    """A 3 x 3 kernel and a padded 1 x 1 kernel, each with the scale of its norm (RepVGG)."""
    n, k = len(x.space), d.width()
    call = getattr(F, f"conv{n}d")
    shape = (-1, *(1,) * (n + 1))

    def forward(m: Any, y: Any) -> Any:
        w = m.a * m.s.view(shape) + F.pad(m.b * m.t.view(shape), [1, 1] * n)
        return call(y, w, m.s + m.t, padding=1)

    big, small = d.parameter(k, x.c, *(3,) * n), d.parameter(k, x.c, *(1,) * n)
    return Step(forward, a=big, b=small, s=d.parameter(k), t=d.parameter(k))


@construct("any")
def quantised_weight(d: Draw, x: Example) -> Step:
    call, k, how = apply(x), d.width(), d.pick("row", "tensor", "sign", "mask")

    def forward(m: Any, y: Any) -> Any:
        if how == "row":
            scale = m.w.abs().amax(1, keepdim=True) / 7
            return call(y, torch.round(m.w / scale) * scale)
        if how == "tensor":
            scale = m.w.abs().mean()
            return call(y, (m.w / scale).clamp(-1, 1) * scale)
        if how == "mask":
            return call(y, m.w * m.keep)
        return call(y, torch.sign(m.w) * m.w.abs().mean(1, keepdim=True))

    return Step(forward, w=d.parameter(k, x.c), keep=(d.tensor(k, x.c) > 0).float())


@construct("any")
def attribute_shared_by_layers(d: Draw, x: Example) -> Step:
    """Two layers with one weight and biases of their own."""
    a, b = dense(x, x.c), dense(x, x.c)
    b.weight = a.weight
    return Step(lambda m, y: m.b(torch.tanh(m.a(y))), a=a, b=b)


@construct("image")
def convolution_and_its_transpose(d: Draw, x: Example) -> Step:
    n = len(x.space)
    forth, back = getattr(F, f"conv{n}d"), getattr(F, f"conv_transpose{n}d")
    w = d.parameter(d.width(), x.c, *(3,) * n)
    return Step(lambda m, y: back(torch.relu(forth(y, m.w, padding=1)), m.w, padding=1), w=w)


@construct("image")
def modulated_convolution(d: Draw, x: Example) -> Step | None:
    """Every image scales the kernel by its style and normalises it again (StyleGAN2)."""
    if x.rank != 4:
        return None
    k, (h, w), fused = d.width(), x.space, d.chance()

    def forward(m: Any, y: Any) -> Any:
        style = m.s(y.mean((2, 3)))
        weight = m.w[None] * style[:, None, :, None, None]
        demod = torch.rsqrt(weight.pow(2).sum((2, 3, 4)) + 1e-4)
        if not fused:
            return F.conv2d(y * style[..., None, None], m.w, padding=1) * demod[..., None, None]
        weight = weight * demod[..., None, None, None]
        z = F.conv2d(y.reshape(1, -1, h, w), weight.view(-1, x.c, 3, 3), padding=1, groups=y.shape[0])
        return z.view(-1, k, h, w)

    return Step(forward, s=nn.Linear(x.c, x.c), w=d.parameter(k, x.c, 3, 3))


@construct("any")
def list_of_parameters(d: Draw, x: Example) -> Step:
    call, widths = apply(x), [x.c, d.width(), d.width()]
    found = nn.ParameterList(d.parameter(o, i) for i, o in itertools.pairwise(widths))
    named = nn.ParameterDict({"gain": d.parameter(1), "shift": d.parameter(1)})

    def forward(m: Any, y: Any) -> Any:
        for w in m.found:
            y = torch.relu(call(y, w)) * m.named["gain"] + m.named["shift"]
        return y

    return Step(forward, found=found, named=named)


@construct("any")
def masked_layer(d: Draw, x: Example) -> Step:
    """A buffer that switches outputs, as pruning in training leaves it."""
    out = d.width()
    layer, keep = dense(x, out), (d.tensor(out) > -0.5).float()
    shape = [1] * (x.rank - 1)
    shape[x.axis - 1] = -1
    return Step(lambda m, y: m.a(y) * m.keep.view(shape), a=layer, keep=keep)


@construct("image")
def grouped_by_one_module(d: Draw, x: Example) -> Step | None:
    """One convolution on every piece of the channels, the pieces folded into the batch."""
    k = d.divisor(x.c)
    if k is None:
        return None
    n, out = len(x.space), d.width()

    def forward(m: Any, y: Any) -> Any:
        z = m.a(y.reshape(-1, x.c // k, *x.space))
        return z.reshape(y.shape[0], k * out, *x.space)

    return Step(forward, a=conv(n, x.c // k, out)) if d.fits(x, k * out / x.c) else None


@construct("any")
def tied_transposed(d: Draw, x: Example) -> Step | None:
    """An autoencoder whose decoder is the encoder transposed."""
    if x.kind == "image":
        return None
    a = nn.Linear(x.c, d.width())
    return Step(lambda m, y: F.linear(torch.relu(m.a(y)), m.a.weight.t(), m.b), a=a, b=d.parameter(x.c))


@construct("any")
def low_rank(d: Draw, x: Example) -> Step | None:
    """A frozen layer beside a product of two small ones, and bare parameters."""
    if x.kind == "image":
        return None
    out, rank = d.width(), d.pick(2, 3)
    how = d.pick("matmul", "merged", "tensordot")

    def forward(m: Any, y: Any) -> Any:
        if how == "merged":
            return F.linear(y, m.w.t() + (m.p @ m.q).t())
        if how == "tensordot":
            return torch.tensordot(y, m.w, dims=([-1], [0]))
        return y @ m.w + 0.5 * ((y @ m.p) @ m.q)

    return Step(forward, w=d.parameter(x.c, out), p=d.parameter(x.c, rank), q=d.parameter(rank, out))
