"""What is done to channels: gates, splits, shuffles, views that merge and split them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct, conv, dense


@construct("any")
def linear(d: Draw, x: Example) -> Step:
    act = d.activation()
    return Step(lambda m, y: act(m.a(y)), a=dense(x, d.width(), bias=d.chance(0.7)))


@construct("any")
def feed_forward(d: Draw, x: Example) -> Step:
    act, inner = d.activation(), 2 * d.width()
    return Step(lambda m, y: y + m.b(act(m.a(y))), a=dense(x, inner), b=dense(x, x.c, inputs=inner))


@construct("any")
def gated_feed_forward(d: Draw, x: Example) -> Step:
    kind, inner, axis = d.pick("glu", "swiglu", "packed", "simple", "thirds"), d.width(2), x.axis
    wide = dense(x, {"thirds": 3}.get(kind, 2) * inner)

    def forward(m: Any, y: Any) -> Any:
        if kind == "glu":
            h = F.glu(m.a(y), axis)
        elif kind == "swiglu":
            h = F.silu(m.b(y)) * m.c(y)
        elif kind == "packed":
            p, q = m.a(y).split(inner, axis)
            h = p * F.gelu(q)
        elif kind == "simple":
            p, q = m.a(y).chunk(2, axis)
            h = p * q
        else:
            p, q, r = m.a(y).chunk(3, axis)
            h = p * torch.tanh(q) + r
        return m.o(h)

    return Step(forward, a=wide, b=dense(x, inner), c=dense(x, inner), o=dense(x, d.width(), inputs=inner))


@construct("any")
def squeeze_excite(d: Draw, x: Example) -> Step:
    dims, small = x.places, d.width()
    gate: Any = d.pick(torch.sigmoid, F.hardsigmoid)

    def forward(m: Any, y: Any) -> Any:
        s = y.mean(dims, keepdim=True) if dims else y
        return y * gate(m.b(torch.relu(m.a(s))))

    return Step(forward, a=dense(x, small), b=dense(x, x.c, inputs=small))


@construct("image")
def efficient_channel_attention(d: Draw, x: Example) -> Step:
    """A convolution along the channels."""
    dims = tuple(range(2, x.rank))
    ones = (1,) * len(x.space)

    def forward(m: Any, y: Any) -> Any:
        gate = torch.sigmoid(m.a(y.mean(dims).unsqueeze(1))).squeeze(1)
        return y * gate.view(*gate.shape, *ones)

    return Step(forward, a=conv(1, 1, 1, 3, bias=False))


@construct("image")
def spatial_gate(d: Draw, x: Example) -> Step:
    def forward(m: Any, y: Any) -> Any:
        both = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return y * torch.sigmoid(m.a(both))

    return Step(forward, a=conv(len(x.space), 2, 1))


@construct("any")
def softmax_over_channels(d: Draw, x: Example) -> Step:
    axis, k = x.axis, d.width()
    return Step(lambda m, y: m.b(m.a(y).softmax(axis)), a=dense(x, k), b=dense(x, d.width(), inputs=k))


@construct("any")
def concat_of_signs(d: Draw, x: Example) -> Step | None:
    axis = x.axis
    if not d.fits(x, 2):
        return None
    return Step(lambda m, y: torch.relu(torch.cat([y, -y], axis)))


@construct("any")
def maxout(d: Draw, x: Example) -> Step | None:
    k, axis = d.divisor(x.c), x.axis
    if k is None:
        return None
    if d.chance():
        return Step(lambda m, y: y.unflatten(axis, (k, -1)).amax(axis))
    return Step(lambda m, y: y.unflatten(axis, (-1, k)).max(axis + 1).values)


@construct("any")
def sum_of_blocks(d: Draw, x: Example) -> Step | None:
    k, axis, inner, kind = d.divisor(x.c), x.axis, d.pick(0, 1), d.pick("sum", "mean", "logsumexp", "std")
    if k is None:
        return None

    def forward(m: Any, y: Any) -> Any:
        y = y.unflatten(axis, (k, x.c // k))
        return getattr(y, kind)(axis + inner)

    return Step(forward) if kind != "std" or x.c // k > 1 else None


@construct("any")
def shuffled_channels(d: Draw, x: Example) -> Step | None:
    k, axis, how = d.divisor(x.c), x.axis, d.pick("view", "module", "index", "rearranged")
    if k is None:
        return None
    if how == "module" and x.kind == "image":
        return Step(lambda m, y: m.s(y), s=nn.ChannelShuffle(k))
    if how == "index":
        return Step(lambda m, y: y.index_select(axis, m.i), i=torch.tensor(d.order(x.c)))
    return Step(lambda m, y: y.unflatten(axis, (k, x.c // k)).transpose(axis, axis + 1).flatten(axis, axis + 1))


@construct("any")
def scaled_blocks(d: Draw, x: Example) -> Step | None:
    """Channels seen as blocks with a parameter for each block, each index, or both."""
    k, axis, kind = d.divisor(x.c), x.axis, d.pick("block", "index", "both")
    if k is None:
        return None
    shape = {"block": (k, 1), "index": (1, x.c // k), "both": (k, x.c // k)}[kind]
    tail = (1,) * (x.rank - axis - 1)
    g = d.parameter(*shape, *tail)
    return Step(lambda m, y: (y.unflatten(axis, (k, x.c // k)) * m.g).flatten(axis, axis + 1), g=g)


@construct("any")
def blockwise_linear(d: Draw, x: Example) -> Step | None:
    """An einsum with a matrix for every block of channels."""
    k = d.divisor(x.c)
    if k is None or x.kind == "image":
        return None
    out = d.pick(2, 3, 4)
    w = d.parameter(k, x.c // k, out)
    equation = "...ki,kio->...ko" if d.chance() else "...ki,kio->...ok"
    return Step(lambda m, y: torch.einsum(equation, y.unflatten(-1, (k, -1)), m.w).flatten(-2), w=w)


@construct("any")
def linear_inside_blocks(d: Draw, x: Example) -> Step | None:
    """One small layer shared by all blocks of channels."""
    k, norm = d.divisor(x.c), d.chance(0.3)
    if k is None or x.kind == "image" or x.c // k < 2:
        return None
    layer = nn.LayerNorm(x.c // k) if norm else nn.Linear(x.c // k, d.width())
    return Step(lambda m, y: m.a(y.unflatten(-1, (k, -1))).flatten(-2), a=layer)


@construct("any")
def picked_pieces(d: Draw, x: Example) -> Step | None:
    """Slices, narrows and selects of the channels that meet again."""
    axis, c = x.axis, x.c
    if c < 5:
        return None
    start, length = d.random.randint(0, c - 3), d.random.randint(2, 3)
    index = d.random.randint(0, c - 1)

    def forward(m: Any, y: Any) -> Any:
        part = y.narrow(axis, start, min(length, c - start))
        return torch.cat([part * y.select(axis, index).unsqueeze(axis), y], axis)

    return Step(forward)


@construct("any")
def uneven_pieces(d: Draw, x: Example) -> Step | None:
    axis, c, scaled = x.axis, x.c, d.chance(0.3)
    if c < 6:
        return None
    first = d.random.randint(1, c - 4)
    sizes = [first, 2, c - first - 2]

    def forward(m: Any, y: Any) -> Any:
        p, q, r = y.split(sizes, axis)
        return torch.cat([r, torch.tanh(p) * q.mean(axis, keepdim=True) if scaled else p, m.a(q)], axis)

    return Step(forward, a=dense(x, d.width(), inputs=2))


@construct("any")
def unbound_blocks(d: Draw, x: Example) -> Step | None:
    k, axis, last, doubled = d.divisor(x.c), x.axis, d.chance(), d.chance()
    if k is None or k > 4:
        return None

    def forward(m: Any, y: Any) -> Any:
        parts = y.unflatten(axis, (-1, k)).unbind(axis + 1) if last else y.unflatten(axis, (k, -1)).unbind(axis)
        total = parts[0]
        for part in parts[1:]:
            total = total * torch.sigmoid(part)
        return torch.stack([total, parts[0]], axis).flatten(axis, axis + 1) if doubled else total

    return Step(forward)


@construct("any")
def every_second(d: Draw, x: Example) -> Step | None:
    axis = x.axis
    if x.c % 2:
        return None
    even = (slice(None),) * axis + (slice(0, None, 2),)
    odd = (slice(None),) * axis + (slice(1, None, 2),)
    return Step(lambda m, y: torch.cat([y[even] * torch.cos(y[odd]), y[odd]], axis))


@construct("any")
def padded_channels(d: Draw, x: Example) -> Step:
    amounts = [0, 0] * (x.rank - 1 - x.axis) + [d.pick(0, 1, 2), d.pick(0, 2)]
    value = d.pick(0.0, 0.5)
    return Step(lambda m, y: m.a(F.pad(y, amounts, value=value)), a=dense(x, d.width(), inputs=x.c + sum(amounts)))


@construct("any")
def repeated_channels(d: Draw, x: Example) -> Step | None:
    times, axis, how = d.pick(2, 3), x.axis, d.pick("repeat", "tile", "interleave", "expand", "cat")
    if not d.fits(x, times):
        return None
    counts = [1] * x.rank
    counts[axis] = times

    def forward(m: Any, y: Any) -> Any:
        if how == "repeat":
            return y.repeat(*counts)
        if how == "tile":
            return torch.tile(y, counts)
        if how == "interleave":
            return y.repeat_interleave(times, axis)
        if how == "cat":
            return torch.cat([y] * times, axis)
        wide = y.unsqueeze(axis + 1)
        return wide.expand(*wide.shape[: axis + 1], times, *wide.shape[axis + 2 :]).flatten(axis, axis + 1)

    return Step(forward)


@construct("any")
def moved_along_channels(d: Draw, x: Example) -> Step:
    how, axis = d.pick("cumsum", "flip", "roll", "sort", "cumprod"), x.axis
    calls = {
        "cumsum": lambda y: y.cumsum(axis) / x.c,
        "flip": lambda y: y.flip(axis),
        "roll": lambda y: y.roll(1, axis),
        "sort": lambda y: y.sort(axis).values,
        "cumprod": lambda y: torch.tanh(y).cumprod(axis),
    }
    return Step(lambda m, y: calls[how](y))


@construct("any")
def mixture_of_experts(d: Draw, x: Example) -> Step | None:
    if x.kind == "image":
        return None
    experts, inner, how = 3, d.width(), d.pick("loop", "einsum", "stack")

    def forward(m: Any, y: Any) -> Any:
        gates = m.r(y).softmax(-1)
        if how == "einsum":
            h = torch.relu(torch.einsum("...i,kih->...kh", y, m.up))
            return torch.einsum("...kh,kho,...k->...o", h, m.down, gates)
        if how == "stack":
            every = torch.stack([layer(y) for layer in m.layers], -2)
            return (every * gates.unsqueeze(-1)).sum(-2)
        total = gates[..., :1] * m.layers[0](y)
        for k in range(1, experts):
            total = total + gates[..., k : k + 1] * m.layers[k](y)
        return total

    width = d.width()
    bank = {"up": d.parameter(experts, x.c, inner), "down": d.parameter(experts, inner, width)}
    each = [nn.Sequential(nn.Linear(x.c, inner), nn.ReLU(), nn.Linear(inner, width)) for _ in range(experts)]
    return Step(forward, r=nn.Linear(x.c, experts), layers=nn.ModuleList(each), **bank)
