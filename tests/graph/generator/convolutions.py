"""Convolutions of all kinds, and the blocks that are made of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from tests.graph.generator.draw import Draw, Example, Step, construct, conv


def _dims(x: Example) -> int:
    return len(x.space)


@construct("image")
def convolution(d: Draw, x: Example) -> Step:
    act = d.activation()
    size, stride = d.pick(1, 3), d.pick(1, 1, 2) if min(x.space) > 2 else 1
    layer = conv(_dims(x), x.c, d.width(), size, stride=stride, bias=d.chance(), dilation=d.pick(1, 2))
    return Step(lambda m, y: act(m.a(y)), a=layer)


@construct("image")
def convolution_padded(d: Draw, x: Example) -> Step:
    mode = d.pick("reflect", "replicate", "circular") if min(x.space) > 1 else "zeros"
    return Step(lambda m, y: m.a(y), a=conv(_dims(x), x.c, d.width(), padding_mode=mode))


@construct("image")
def grouped_convolution(d: Draw, x: Example) -> Step | None:
    groups = d.divisor(x.c)
    if groups is None:
        return None
    a = conv(_dims(x), x.c, d.width(groups), d.pick(1, 3), groups=groups, bias=d.chance())
    return Step(lambda m, y: torch.relu(m.a(y)), a=a)


@construct("image")
def depthwise_separable(d: Draw, x: Example) -> Step:
    times = d.pick(1, 1, 2)
    a = conv(_dims(x), x.c, times * x.c, groups=x.c)
    return Step(lambda m, y: m.b(torch.relu(m.a(y))), a=a, b=conv(_dims(x), times * x.c, d.width(), 1))


@construct("image")
def transposed_convolution(d: Draw, x: Example) -> Step | None:
    n, stride = _dims(x), d.pick(1, 2)
    groups = d.pick(1, 1, d.divisor(x.c) or 1)
    outputs = d.width(groups)
    if not d.fits(x, stride**n * outputs / x.c):
        return None
    layer = getattr(nn, f"ConvTranspose{n}d")(x.c, outputs, 2 if stride == 2 else 1, stride, groups=groups)
    return Step(lambda m, y: m.a(y), a=layer)


@construct("image")
def functional_convolution(d: Draw, x: Example) -> Step:
    """The weight is a bare parameter, stored (in, out, ...) and transposed in every call."""
    n = _dims(x)
    call = getattr(F, f"conv{n}d")
    return Step(lambda m, y: call(y, m.w.transpose(0, 1), padding=1), w=d.parameter(x.c, d.width(), *(3,) * n))


@construct("image")
def standardised_weight(d: Draw, x: Example) -> Step:
    n, groups = _dims(x), d.pick(1, d.divisor(x.c) or 1)
    outputs = d.width(groups)
    call = getattr(F, f"conv{n}d")
    dims = tuple(range(1, n + 2))

    def forward(m: Any, y: Any) -> Any:
        w = m.w - m.w.mean(dims, keepdim=True)
        w = m.g * w * torch.rsqrt(w.pow(2).mean(dims, keepdim=True) + 1e-5)
        return call(y, w, m.b, padding=1, groups=groups)

    g = d.parameter(outputs, *(1,) * (n + 1))
    return Step(forward, w=d.parameter(outputs, x.c // groups, *(3,) * n), b=d.parameter(outputs), g=g)


@construct("image")
def standardised_by_batch_norm(d: Draw, x: Example) -> Step:
    n, groups = _dims(x), d.pick(1, d.divisor(x.c) or 1)
    outputs = d.width(groups)
    call = getattr(F, f"conv{n}d")

    def forward(m: Any, y: Any) -> Any:
        flat = m.w.reshape(1, m.w.shape[0], -1)
        w = F.batch_norm(flat, None, None, weight=m.g, training=True, momentum=0.0, eps=1e-5)
        return call(y, w.reshape_as(m.w), padding=1, groups=groups)

    return Step(forward, w=d.parameter(outputs, x.c // groups, *(3,) * n), g=d.parameter(outputs))


def _layer(d: Draw, x: Example) -> nn.Module:
    if x.kind != "image":
        return nn.Linear(x.c, d.width())
    groups = d.pick(1, 1, d.divisor(x.c) or 1)
    return conv(_dims(x), x.c, d.width(groups), groups=groups)


@construct("any")
def weight_norm(d: Draw, x: Example) -> Step:
    layer = _layer(d, x)
    return Step(lambda m, y: torch.relu(m.a(y)), a=parametrizations.weight_norm(layer, dim=d.pick(0, 0, 1)))


@construct("any")
def spectral_norm(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: torch.relu(m.a(y)), a=parametrizations.spectral_norm(_layer(d, x)))


@construct("image")
def residual_block(d: Draw, x: Example) -> Step:
    n, inner, act = _dims(x), d.width(), d.activation()
    norm = getattr(nn, f"BatchNorm{n}d")
    return Step(lambda m, y: act(y + m.n(m.b(act(m.a(y))))), a=conv(n, x.c, inner), b=conv(n, inner, x.c), n=norm(x.c))


@construct("image")
def preactivation_with_shortcut(d: Draw, x: Example) -> Step:
    n, outputs = _dims(x), d.width()
    return Step(
        lambda m, y: m.s(y) + m.b(torch.relu(m.n(m.a(torch.relu(y))))),
        a=conv(n, x.c, outputs),
        n=getattr(nn, f"BatchNorm{n}d")(outputs),
        b=conv(n, outputs, outputs),
        s=conv(n, x.c, outputs, 1, bias=False),
    )


@construct("image")
def inverted_residual(d: Draw, x: Example) -> Step:
    n, inner, small = _dims(x), 2 * x.c, d.width()
    dims = tuple(range(2, x.rank))

    def forward(m: Any, y: Any) -> Any:
        h = F.hardswish(m.b(F.hardswish(m.a(y))))
        return y + m.c(h * F.hardsigmoid(m.e(torch.relu(m.s(h.mean(dims, keepdim=True))))))

    parts = {"a": conv(n, x.c, inner, 1), "b": conv(n, inner, inner, groups=inner), "c": conv(n, inner, x.c, 1)}
    return Step(forward, **parts, s=conv(n, inner, small, 1), e=conv(n, small, inner, 1))


@construct("image")
def dense_block(d: Draw, x: Example) -> Step | None:
    n, growth = _dims(x), d.pick(2, 3, 4)
    if not d.fits(x, 1 + 2 * growth / x.c):
        return None

    def forward(m: Any, y: Any) -> Any:
        found = [y]
        for layer in m.layers:
            found.append(layer(torch.relu(torch.cat(found, 1))))
        return torch.cat(found, 1)

    return Step(forward, layers=nn.ModuleList(conv(n, x.c + i * growth, growth) for i in range(2)))


@construct("image")
def partial_convolution(d: Draw, x: Example) -> Step | None:
    if x.c < 4:
        return None
    k = d.random.randint(2, x.c - 2)
    return Step(lambda m, y: torch.cat([m.a(y[:, :k]), y[:, k:]], 1), a=conv(_dims(x), k, k))


@construct("image")
def hierarchical_split(d: Draw, x: Example) -> Step | None:
    """Pieces of the channels, each added to the convolved piece before it."""
    pieces = d.divisor(x.c)
    if pieces is None or pieces > 4:
        return None
    k = x.c // pieces

    def forward(m: Any, y: Any) -> Any:
        parts = list(torch.split(y, k, 1))
        out = [parts[0]]
        for layer, part in zip(m.layers, parts[1:], strict=True):
            out.append(torch.relu(layer(part + out[-1])))
        return torch.cat(out, 1)

    return Step(forward, layers=nn.ModuleList(conv(_dims(x), k, k) for _ in range(pieces - 1)))


@construct("image")
def shuffle_unit(d: Draw, x: Example) -> Step | None:
    if x.c % 4:
        return None
    n, half, view = _dims(x), x.c // 2, d.chance()

    def forward(m: Any, y: Any) -> Any:
        a, b = y.chunk(2, 1)
        z = torch.cat([a, m.c(m.b(torch.relu(m.a(b))))], 1)
        if view:
            return z.view(z.shape[0], 2, half, *z.shape[2:]).transpose(1, 2).flatten(1, 2)
        return m.s(z)

    parts = {"a": conv(n, half, half, 1), "b": conv(n, half, half, groups=half), "c": conv(n, half, half, 1)}
    return Step(forward, **parts, s=nn.ChannelShuffle(2))


@construct("image")
def ghost(d: Draw, x: Example) -> Step:
    n, k = _dims(x), d.width()

    def forward(m: Any, y: Any) -> Any:
        y = m.a(y)
        return torch.cat([y, m.b(y)], 1)

    return Step(forward, a=conv(n, x.c, k, 1), b=conv(n, k, k, groups=k))


@construct("image")
def small_u_net(d: Draw, x: Example) -> Step | None:
    if any(n % 2 for n in x.space):
        return None
    n, k = _dims(x), d.width()
    pool = getattr(F, d.pick("max_pool", "avg_pool") + f"{n}d")
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[n]
    mode, resized = d.pick("nearest", smooth), d.chance()

    def forward(m: Any, y: Any) -> Any:
        low = torch.relu(m.a(pool(y, 2)))
        up = F.interpolate(low, scale_factor=2.0, mode=mode) if resized else m.up(low)
        return m.b(torch.cat([y, up], 1))

    parts = {"a": conv(n, x.c, k), "b": conv(n, x.c + k, d.width())}
    return Step(forward, **parts, up=getattr(nn, f"ConvTranspose{n}d")(k, k, 2, 2))


@construct("image")
def mixture_of_kernels(d: Draw, x: Example) -> Step | None:
    """The kernel of every image is a mixture by a softmax over a bank (dynamic convolution)."""
    if x.rank != 4:
        return None
    outputs, (h, w) = d.width(), x.space

    def forward(m: Any, y: Any) -> Any:
        n = y.shape[0]
        weight = torch.einsum("nk,koihw->noihw", m.r(y.mean((2, 3))).softmax(1), m.bank)
        z = F.conv2d(y.reshape(1, -1, h, w), weight.flatten(0, 1), padding=1, groups=n)
        return z.view(n, outputs, h, w)

    return Step(forward, r=nn.Linear(x.c, 3), bank=d.parameter(3, outputs, x.c, 3, 3))


@construct("image")
def generated_kernel(d: Draw, x: Example) -> Step:
    """A 1 x 1 convolution whose weight is made from the image itself."""
    k = d.width()
    dims = tuple(range(2, x.rank))

    def forward(m: Any, y: Any) -> Any:
        weight = m.r(y.mean(dims)).view(-1, k, x.c)
        return torch.bmm(weight, y.flatten(2)).unflatten(2, x.space)

    return Step(forward, r=nn.Linear(x.c, k * x.c))


@construct("image")
def unfolded_convolution(d: Draw, x: Example) -> Step | None:
    if x.rank != 4:
        return None
    outputs = d.width()
    return Step(
        lambda m, y: (m.a(F.unfold(y, 3, padding=1).transpose(1, 2))).transpose(1, 2).unflatten(2, x.space),
        a=nn.Linear(9 * x.c, outputs),
    )


@construct("image")
def shared_convolution(d: Draw, x: Example) -> Step:
    """One layer called twice."""
    a = conv(_dims(x), x.c, x.c)
    return Step(lambda m, y: m.a(torch.relu(m.a(y))), a=a)


@construct("image")
def multi_branch(d: Draw, x: Example) -> Step:
    n, (p, q) = _dims(x), (d.width(), d.width())
    pool = getattr(F, f"max_pool{n}d")
    return Step(
        lambda m, y: torch.cat([m.a(y), m.c(torch.relu(m.b(y))), m.e(pool(y, 3, 1, 1))], 1),
        a=conv(n, x.c, p, 1), b=conv(n, x.c, q, 1), c=conv(n, q, p), e=conv(n, x.c, 3, 1),
    )  # fmt: skip


@construct("image")
def blur(d: Draw, x: Example) -> Step:
    """A fixed kernel, expanded to all channels."""
    n = _dims(x)
    call = getattr(F, f"conv{n}d")
    return Step(
        lambda m, y: call(y, m.k.expand(y.shape[1], 1, *m.k.shape[2:]), padding=1, groups=y.shape[1]),
        k=d.tensor(1, 1, *(3,) * n),
    )
