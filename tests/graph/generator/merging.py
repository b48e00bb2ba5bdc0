"""Two tensors that meet, and changes in place."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct, dense


def _matching(x: Example, y: Example) -> Any:
    """A layer that gives ``y`` the channels of ``x``; None where their places differ too."""
    places = tuple(x.shape[p] for p in x.places)
    if x.kind == y.kind and tuple(y.shape[p] for p in y.places) == places:
        return nn.Identity() if x.c == y.c else dense(y, x.c)
    if y.kind == "vector" and x.kind != "vector":
        layer = nn.Linear(y.c, x.c)
        shape = (1, x.c) if x.kind == "tokens" else (x.c, *(1,) * len(x.space))
        return nn.Sequential(layer, nn.Unflatten(1, shape))
    return None


@construct("any", "any")
def meeting(d: Draw, x: Example, y: Example) -> Step | None:
    """Elementwise, after a layer where channels differ, broadcast where places are missing."""
    layer = _matching(x, y)
    if layer is None:
        return None
    how = d.pick("add", "sub", "mul", "gate", "minimum", "maximum", "where", "lerp", "addcmul", "clamp", "weighted")
    calls = {
        "add": lambda m, a, b: a + b,
        "sub": lambda m, a, b: a - b,
        "mul": lambda m, a, b: a * b,
        "gate": lambda m, a, b: a * torch.sigmoid(b),
        "minimum": lambda m, a, b: torch.minimum(a, b),
        "maximum": lambda m, a, b: torch.max(a, b.expand_as(a)),
        "where": lambda m, a, b: torch.where(b > 0.1, a, b),
        "lerp": lambda m, a, b: torch.lerp(a, b.expand_as(a), 0.3),
        "addcmul": lambda m, a, b: torch.addcmul(a, a, b, value=0.5),
        "clamp": lambda m, a, b: a.clamp(-1, 2) + b.clamp_min(0),
        "weighted": lambda m, a, b: m.w[0] * a + m.w[1] * b,
    }
    return Step(lambda m, a, b: calls[how](m, a, m.l(b)), l=layer, w=d.parameter(2))


@construct("any", "any")
def concatenated(d: Draw, x: Example, y: Example) -> Step | None:
    """Side by side along the channels."""
    if x.kind != y.kind or [x.shape[p] for p in x.places] != [y.shape[p] for p in y.places]:
        return None
    axis = x.axis
    if d.chance() or not d.fits(x, 1 + y.c / x.c):
        mixed = dense(x, d.width(), inputs=x.c + y.c)
        return Step(lambda m, a, b: m.o(torch.cat([a, b], axis)), o=mixed)
    return Step(lambda m, a, b: torch.cat([a, b], axis) if m.both else torch.cat((b, a), axis), both=d.chance())


@construct("tokens", "tokens")
def tokens_together(d: Draw, x: Example, y: Example) -> Step:
    """Side by side along the tokens."""
    layer = nn.Identity() if x.c == y.c else nn.Linear(y.c, x.c)
    return Step(lambda m, a, b: torch.cat([a, m.l(b)], 1), l=layer)


@construct("image", "image")
def resized_and_joined(d: Draw, x: Example, y: Example) -> Step | None:
    """As in U-Nets and feature pyramids."""
    if x.rank != y.rank:
        return None
    added = d.chance()
    layer = dense(y, x.c if added else d.width())

    def forward(m: Any, a: Any, b: Any) -> Any:
        b = F.interpolate(m.l(b), size=a.shape[2:], mode="nearest")
        return a + b if added else torch.cat([a, b], 1)

    return Step(forward, l=layer) if d.fits(x, 2.5) else None


@construct("any", "any")
def modulated(d: Draw, x: Example, y: Example) -> Step | None:
    """Gain and shift of every channel from the mean of the other tensor (FiLM)."""
    dims = y.places
    shape = [1] * (x.rank - 1)
    shape[x.axis - 1] = x.c

    def forward(m: Any, a: Any, b: Any) -> Any:
        gain, shift = m.f(b.mean(dims) if dims else b).chunk(2, 1)
        return a * (1 + gain.view(-1, *shape)) + shift.view(-1, *shape)

    return Step(forward, f=nn.Linear(y.c, 2 * x.c))


@construct("any", "any")
def stacked(d: Draw, x: Example, y: Example) -> Step | None:
    """Stacked along a new dim and weighed by a softmax over it (selective kernels)."""
    layer = _matching(x, y)
    if layer is None or (y.kind != x.kind):
        return None
    dims, how = x.places, d.pick("sum", "amax", "mean", "weighed", "flatten")
    axis = x.axis

    def forward(m: Any, a: Any, b: Any) -> Any:
        both = torch.stack([a, m.l(b)], 1)
        if how == "weighed":
            s = both.sum(1)
            s = s.mean(dims) if dims else s
            shape = [1] * (x.rank - 1)
            shape[axis - 1] = x.c
            return (both * m.f(s).view(-1, 2, *shape).softmax(1)).sum(1)
        if how == "flatten":
            return torch.stack([a, m.l(b)], axis).flatten(axis, axis + 1)
        return getattr(both, how)(1)

    return Step(forward, l=layer, f=nn.Linear(x.c, 2 * x.c)) if d.fits(x, 2) else None


@construct("any", "any")
def compared(d: Draw, x: Example, y: Example) -> Step | None:
    """Products of all positions of one tensor with all of the other, softmax, weighted mean."""
    if x.kind == "image" or y.kind == "image":
        return None
    k = d.width()

    def forward(m: Any, a: Any, b: Any) -> Any:
        p, q = m.p(a), m.q(b)
        p = p if p.dim() == 3 else p.unsqueeze(1)
        q = q if q.dim() == 3 else q[:, None]
        z = (p @ q.mT).softmax(-1) @ q
        return m.o(z if a.dim() == 3 else z.squeeze(1))

    return Step(forward, p=nn.Linear(x.c, k), q=nn.Linear(y.c, k), o=nn.Linear(k, d.width()))


@construct("any", changes=True)
def in_place(d: Draw, x: Example) -> Step:
    axis, how = x.axis, d.pick("relu", "mul", "add", "clamp", "chain")
    layer = dense(x, x.c)

    def forward(m: Any, y: Any) -> Any:
        other = m.l(y)
        if how == "relu":
            F.relu_(y)
        elif how == "mul":
            y.mul_(torch.sigmoid(other))
        elif how == "add":
            y += other
        elif how == "clamp":
            y.clamp_(-1, 1).add_(other, alpha=0.5)
        else:
            y.sub_(y.mean(axis, keepdim=True)).mul_(0.7)
            y.add_(other)
        return y

    return Step(forward, l=layer)


@construct("any", changes=True)
def in_place_through_a_view(d: Draw, x: Example) -> Step | None:
    if x.c < 4:
        return None
    axis, k = x.axis, d.random.randint(1, x.c - 2)
    how = d.pick("slice add", "slice set", "narrow", "back", "view", "select", "relu", "fill")
    layer = dense(x, k)
    front, back = ((slice(None),) * axis + (s,) for s in (slice(0, k), slice(k, None)))

    def forward(m: Any, y: Any) -> Any:
        if how == "slice add":
            y[front] += m.l(y)
        elif how == "slice set":
            y[front] = m.l(y)
        elif how == "narrow":
            y.narrow(axis, 0, k).mul_(torch.sigmoid(m.l(y)))
        elif how == "back":
            y[back].add_(0.5).mul_(0.5)
        elif how == "view":
            y.transpose(1, -1).relu_()
        elif how == "select":
            y.select(axis, 0).add_(1.0)
        elif how == "fill":
            y[front] = 0.25
        else:
            y[front].relu_()
        return y

    return Step(forward, l=layer)


@construct("any")
def written_into_zeros(d: Draw, x: Example) -> Step:
    k, axis, how = d.width(), x.axis, d.pick("zeros", "new_zeros", "empty", "zeros_like")
    layer = dense(x, k)
    front, back = ((slice(None),) * axis + (s,) for s in (slice(0, x.c), slice(x.c, None)))

    def forward(m: Any, y: Any) -> Any:
        shape = list(y.shape)
        shape[axis] = x.c + k
        if how == "zeros_like":
            out = torch.zeros_like(torch.cat([y, m.l(y)], axis))
        elif how == "new_zeros":
            out = y.new_zeros(shape)
        else:
            out = torch.zeros(shape) if how == "zeros" else torch.empty(shape)
        out[front] = y
        out[back] = m.l(y)
        return out

    return Step(forward, l=layer)


@construct("any")
def placed_among_zeros(d: Draw, x: Example) -> Step:
    """Written into some rows of zeros: by a slice of the places."""
    if not x.places:
        return Step(lambda m, y: torch.zeros_like(y).copy_(y).mul_(m.s), s=d.parameter(1))
    axis = d.pick(*x.places)

    def forward(m: Any, y: Any) -> Any:
        shape = list(y.shape)
        shape[axis] += 2
        out = torch.zeros(shape)
        out.narrow(axis, 1, y.shape[axis]).copy_(y)
        return out

    return Step(forward)


@construct("any")
def masked(d: Draw, x: Example) -> Step:
    how = d.pick("masked_fill", "where", "multiplied", "index_fill", "scatter")
    mask = d.tensor(*x.shape[1:]) > 0.8
    axis = x.axis
    index = torch.tensor(d.subset(x.c)[:2])

    def forward(m: Any, y: Any) -> Any:
        if how == "masked_fill":
            return y.masked_fill(m.mask, 0.3)
        if how == "where":
            return torch.where(m.mask, y, -0.5)
        if how == "index_fill":
            return y.index_fill(axis, m.i, 0.0)
        if how == "scatter":
            return y.index_add(axis, m.i, y.index_select(axis, m.i))
        return y * m.mask

    return Step(forward, mask=mask, i=index)


@construct("any")
def scalars(d: Draw, x: Example) -> Step:
    """Parameters of one number, norms of the whole tensor, sizes as numbers."""
    how = d.pick("temperature", "total", "count", "power")
    calls = {
        "temperature": lambda m, y: y * m.s.exp() + m.t,
        "total": lambda m, y: y / (y.abs().mean(tuple(range(1, y.dim())), keepdim=True) + 1e-3),
        "count": lambda m, y: y * (y.shape[x.axis] ** -0.5),
        "power": lambda m, y: y.abs().clamp(min=1e-3).pow(m.s).neg(),
    }
    return Step(lambda m, y: calls[how](m, y), s=d.parameter(1), t=nn.Parameter(torch.tensor(0.7)))


@construct("any")
def views_there_and_back(d: Draw, x: Example) -> Step | None:
    """The channels split, merged with a position, and taken apart again."""
    k = d.divisor(x.c)
    if k is None or not x.places:
        return None
    how = d.pick("through batch", "through places", "squeezed")
    places = [x.shape[p] for p in x.places]
    t = math.prod(places)

    def forward(m: Any, y: Any) -> Any:
        z = y.flatten(2) if x.kind == "image" else y.transpose(1, 2)
        n = z.shape[0]
        if how == "through batch":
            z = torch.tanh(z.reshape(n * k, x.c // k, t) * m.w).reshape(n, x.c, t)
        elif how == "through places":
            z = torch.tanh(z.reshape(n, k, (x.c // k) * t)).view(n, x.c, t)
        else:
            z = z.unsqueeze(2).unsqueeze(0).squeeze(2).squeeze(0).view(n, x.c, t)
        return z.reshape(y.shape) if x.kind == "image" else z.transpose(1, 2)

    return Step(forward, w=d.parameter(t))
