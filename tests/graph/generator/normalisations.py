"""Normalisations, built in and written out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct


def channels_last(m: Any, x: Any) -> Any:
    return m.n(x.movedim(1, -1)).movedim(-1, 1)


@construct("image")
def batch_norm(d: Draw, x: Example) -> Step:
    layer = getattr(nn, f"BatchNorm{len(x.space)}d")(x.c, affine=d.chance(0.8))
    return Step(lambda m, y: m.n(y), n=layer)


@construct("vector")
def batch_norm_of_vectors(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: m.n(y), n=nn.BatchNorm1d(x.c))


@construct("tokens")
def batch_norm_over_tokens(d: Draw, x: Example) -> Step:
    if d.chance():
        return Step(lambda m, y: m.n(y), n=nn.BatchNorm1d(x.shape[1]))
    return Step(lambda m, y: m.n(y.transpose(1, 2)).transpose(1, 2), n=nn.BatchNorm1d(x.c))


@construct("any")
def group_norm(d: Draw, x: Example) -> Step:
    groups = d.pick(1, d.divisor(x.c) or 1)
    layer = nn.GroupNorm(groups, x.c, affine=d.chance(0.8))
    if x.kind == "tokens":
        return Step(lambda m, y: m.n(y.transpose(1, 2)).transpose(1, 2), n=layer)
    return Step(lambda m, y: m.n(y), n=layer)


@construct("any")
def layer_norm(d: Draw, x: Example) -> Step:
    layer = d.pick(nn.LayerNorm, nn.RMSNorm)(x.c, elementwise_affine=d.chance(0.8), eps=1e-5)
    return Step(channels_last if x.kind == "image" else lambda m, y: m.n(y), n=layer)


@construct("any")
def layer_norm_of_everything(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: m.n(y), n=nn.LayerNorm(x.shape[1:]))


@construct("image")
def instance_norm(d: Draw, x: Example) -> Step | None:
    if max(x.space) < 2:
        return None
    n = len(x.space)
    layer = getattr(nn, f"InstanceNorm{n}d")(x.c, affine=d.chance(), track_running_stats=d.chance(0.3))
    return Step(lambda m, y: m.n(y), n=layer)


@construct("any")
def norm_written_out(d: Draw, x: Example) -> Step:
    kind, axis = d.pick("mean", "var", "var_mean", "rms", "std"), x.axis
    shape = [1] * x.rank
    shape[axis] = x.c

    def forward(m: Any, y: Any) -> Any:
        if kind == "mean":
            y = y - y.mean(axis, keepdim=True)
            y = y * torch.rsqrt(y.pow(2).mean(axis, keepdim=True) + 1e-6)
        elif kind == "var":
            y = (y - y.mean(axis, keepdim=True)) / torch.sqrt(y.var(axis, keepdim=True, unbiased=False) + 1e-6)
        elif kind == "var_mean":
            var, mean = torch.var_mean(y, axis, keepdim=True, correction=0)
            y = (y - mean) * torch.rsqrt(var + 1e-6)
        elif kind == "std":
            y = (y - y.mean(axis, keepdim=True)) / (y.std(axis, keepdim=True) + 1e-6)
        else:
            y = y * torch.rsqrt(y.square().mean(axis, keepdim=True) + 1e-6)
        return y * m.g.view(shape) + m.b.view(shape)

    return Step(forward, g=d.parameter(x.c), b=d.parameter(x.c))


@construct("any")
def unit_length(d: Draw, x: Example) -> Step:
    axis = x.axis
    if d.chance():
        return Step(lambda m, y: F.normalize(y, dim=axis, eps=1e-6) * m.s, s=d.parameter(1))
    return Step(lambda m, y: y / (torch.linalg.vector_norm(y, dim=axis, keepdim=True) + 1e-6) * m.s, s=d.parameter(1))


@construct("any")
def norm_over_places(d: Draw, x: Example) -> Step | None:
    """Statistics of every channel over its places, as a style transfer takes them."""
    dims = x.places
    if not dims or max(x.shape[p] for p in dims) < 2:
        return None
    shape = [1] * (x.rank - 1)
    shape[x.axis - 1] = x.c
    return Step(
        lambda m, y: (y - y.mean(dims, keepdim=True)) / (y.std(dims, keepdim=True) + 1e-5) * m.g + m.b,
        g=d.parameter(*shape),
        b=d.parameter(*shape),
    )


@construct("image")
def global_response_norm(d: Draw, x: Example) -> Step:
    dims = tuple(range(2, x.rank))
    shape = (1, x.c, *(1,) * len(x.space))

    def forward(m: Any, y: Any) -> Any:
        size = torch.linalg.vector_norm(y, ord=2, dim=dims, keepdim=True)
        return m.g * (y * size / (size.mean(1, keepdim=True) + 1e-6)) + m.b + y

    return Step(forward, g=d.parameter(*shape), b=d.parameter(*shape))


@construct("image")
def local_response_norm(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: m.n(y), n=nn.LocalResponseNorm(3))


@construct("any")
def conditional_norm(d: Draw, x: Example) -> Step:
    """Gain and shift computed from the mean over the places."""
    layer = nn.LayerNorm(x.c, elementwise_affine=False)
    dims, image = x.places, x.kind == "image"

    def forward(m: Any, y: Any) -> Any:
        z = y.movedim(1, -1) if image else y
        mean = y.mean(dims) if dims else y
        gain, shift = m.f(F.silu(mean)).chunk(2, -1)
        lead = [1] * len(dims)
        z = m.n(z) * (1 + gain.unflatten(0, (-1, *lead))) + shift.unflatten(0, (-1, *lead))
        return z.movedim(-1, 1) if image else z

    return Step(forward, n=layer, f=nn.Linear(x.c, 2 * x.c))


@construct("any")
def layer_scale(d: Draw, x: Example) -> Step:
    shape = [1] * (x.rank - 1)
    shape[x.axis - 1] = x.c
    return Step(lambda m, y: y * m.g, g=d.parameter(*shape))


@construct("any")
def scale_and_shift_of_everything(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: torch.addcmul(m.b, y, m.g), g=d.parameter(*x.shape[1:]), b=d.parameter(*x.shape[1:]))


@construct("any")
def prelu(d: Draw, x: Example) -> Step:
    if x.kind == "tokens":
        return Step(lambda m, y: m.a(y.transpose(1, 2)).transpose(1, 2), a=nn.PReLU(x.c))
    return Step(lambda m, y: m.a(y), a=nn.PReLU(d.pick(1, x.c)))
