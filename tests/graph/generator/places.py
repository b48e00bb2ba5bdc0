"""What is done to spatial positions and tokens: pooling, resampling, views, windows, shifts."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct, conv, dense


@construct("image")
def pooling(d: Draw, x: Example) -> Step | None:
    n = len(x.space)
    if min(x.space) < 2:
        return None
    how = d.pick("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
    call = getattr(F, f"{how}{n}d")
    if how == "lp_pool":
        return Step(lambda m, y: call(torch.sigmoid(y), 2.0, 2))
    return Step(lambda m, y: call(y, 2))


@construct("image")
def resampling(d: Draw, x: Example) -> Step | None:
    n = len(x.space)
    if not d.fits(x, 2**n):
        return None
    smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[n]
    mode = d.pick("nearest", "nearest-exact", "area", *smooth)
    if d.chance():
        size = tuple(d.pick(2, 3, 4) for _ in x.space)
        return Step(lambda m, y: F.interpolate(y, size=size, mode=mode)) if d.fits(x, 4**n) else None
    return Step(lambda m, y: F.interpolate(y, scale_factor=2.0, mode=mode))


@construct("image")
def padding(d: Draw, x: Example) -> Step | None:
    mode = d.pick("constant", "reflect", "replicate", "circular") if min(x.space) > 1 else "constant"
    amounts = [d.pick(0, 1) for _ in range(2 * len(x.space))]
    return Step(lambda m, y: F.pad(y, amounts, mode=mode)) if d.fits(x, 2) else None


@construct("image")
def cropping(d: Draw, x: Example) -> Step | None:
    if min(x.space) < 3:
        return None
    where = (..., *(slice(1, n - d.pick(0, 1)) for n in x.space))
    return Step(lambda m, y: y[where])


@construct("image")
def depth_to_space(d: Draw, x: Example) -> Step | None:
    if x.rank != 4 or not d.fits(x, 4):
        return None
    k, (h, w) = d.width(), x.space
    how = d.pick("module", "view", "einops")

    def forward(m: Any, y: Any) -> Any:
        y = m.a(y)
        if how == "module":
            return F.pixel_shuffle(y, 2)
        if how == "view":
            return y.view(-1, k, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(-1, k, 2 * h, 2 * w)
        return y.view(-1, 2, 2, k, h, w).permute(0, 3, 4, 1, 5, 2).reshape(-1, k, 2 * h, 2 * w)

    return Step(forward, a=conv(2, x.c, 4 * k, 1))


@construct("image")
def space_to_depth(d: Draw, x: Example) -> Step | None:
    if x.rank != 4 or any(n % 2 for n in x.space):
        return None
    (h, w), how = x.space, d.pick("module", "view", "slices", "last")

    def forward(m: Any, y: Any) -> Any:
        if how == "module":
            return m.a(F.pixel_unshuffle(y, 2))
        if how == "view":
            y = y.view(-1, x.c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
            return m.a(y.reshape(-1, 4 * x.c, h // 2, w // 2))
        if how == "slices":
            parts = [y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]]
            return m.a(torch.cat(parts, 1))
        y = y.permute(0, 2, 3, 1).reshape(-1, h // 2, 2, w // 2, 2, x.c)
        return m.a(y.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2))

    return Step(forward, a=conv(2, 4 * x.c, d.width(), 1))


@construct("image", gives="tokens")
def to_tokens(d: Draw, x: Example) -> Step:
    how = d.pick("flatten", "permute", "movedim")

    def forward(m: Any, y: Any) -> Any:
        if how == "flatten":
            return y.flatten(2).transpose(1, 2)
        if how == "permute":
            return y.flatten(2).permute(0, 2, 1).contiguous()
        return torch.movedim(y, 1, -1).reshape(y.shape[0], -1, x.c)

    return Step(forward)


@construct("tokens", gives="image")
def to_image(d: Draw, x: Example) -> Step:
    t, c = x.shape[1:]
    side = d.divisor(t)
    shape = (t,) if side is None or d.chance(0.2) else (side, t // side)
    if d.chance():
        return Step(lambda m, y: y.transpose(1, 2).reshape(-1, c, *shape))
    return Step(lambda m, y: y.unflatten(1, shape).movedim(-1, 1).contiguous())


@construct("any", gives="vector")
def to_vector(d: Draw, x: Example) -> Step | None:
    dims = x.places
    how = d.pick("mean", "sum", "amax", "flatten", "pick", "std", "logsumexp", "attention")
    k = math.prod(x.shape[1:])
    if not dims or (how == "std" and math.prod(x.shape[p] for p in dims) < 2) or (how == "flatten" and k > 600):
        return None
    if how == "flatten":
        return Step(lambda m, y: m.a(y.flatten(1)), a=nn.Linear(k, d.width()))
    if how == "pick":
        where = (slice(None), slice(None), *(0 for _ in x.space)) if x.kind == "image" else (slice(None), 0)
        return Step(lambda m, y: y[where])
    if how == "attention" and x.kind == "tokens":
        return Step(lambda m, y: (m.a(y).softmax(1) * y).sum(1), a=nn.Linear(x.c, 1))
    name = "mean" if how == "attention" else how
    return Step(lambda m, y: getattr(y, name)(dims))


@construct("vector", gives="tokens")
def vector_to_tokens(d: Draw, x: Example) -> Step:
    t, c = d.pick(2, 4, 6), d.width()
    first = d.chance()
    a = nn.Linear(x.c, t * c)
    return Step(lambda m, y: m.a(y).view(-1, t, c) if first else m.a(y).view(-1, c, t).transpose(1, 2), a=a)


@construct("vector", gives="image")
def vector_to_image(d: Draw, x: Example) -> Step:
    c = d.width()
    if d.chance(0.3):
        return Step(lambda m, y: m.a(y)[..., None, None].expand(-1, -1, 3, 2), a=nn.Linear(x.c, c))
    return Step(lambda m, y: m.a(y).unflatten(1, (c, 2, 2)), a=nn.Linear(x.c, 4 * c))


@construct("any")
def mixed_places(d: Draw, x: Example) -> Step | None:
    """A layer across the positions, the same for every channel (MLP-Mixer)."""
    if x.kind == "vector":
        return None
    t, k = math.prod(x.shape[p] for p in x.places), d.width()
    if t > 64:
        return None

    def forward(m: Any, y: Any) -> Any:
        z = y.flatten(2) if x.kind == "image" else y.transpose(1, 2)
        z = m.b(F.gelu(m.a(z)))
        return y + (z.view(y.shape) if x.kind == "image" else z.transpose(1, 2))

    return Step(forward, a=nn.Linear(t, k), b=nn.Linear(k, t))


@construct("tokens")
def spatial_gating(d: Draw, x: Example) -> Step:
    t, k = x.shape[1], d.width()

    def forward(m: Any, y: Any) -> Any:
        u, v = F.gelu(m.a(y)).chunk(2, -1)
        return m.b(u * m.s(m.n(v).transpose(1, 2)).transpose(1, 2))

    return Step(forward, a=nn.Linear(x.c, 2 * k), n=nn.LayerNorm(k), s=nn.Linear(t, t), b=nn.Linear(k, d.width()))


@construct("any")
def shifted_places(d: Draw, x: Example) -> Step | None:
    if x.kind == "vector":
        return None
    axis, how = d.pick(*x.places), d.pick("roll", "flip", "cumsum", "pad", "diff", "softmax", "gather")
    if x.shape[axis] < 2:
        return None
    index = torch.tensor(d.subset(x.shape[axis]))

    def forward(m: Any, y: Any) -> Any:
        if how == "pad":
            moved = y.narrow(axis, 0, y.shape[axis] - 1)
            return torch.cat([torch.zeros_like(y.narrow(axis, 0, 1)), moved], axis)
        if how == "diff":
            return y - y.roll(1, axis)
        if how == "gather":
            shape = [1] * y.dim()
            shape[axis] = -1
            target = list(y.shape)
            target[axis] = len(index)
            return y.gather(axis, m.i.view(shape).expand(target))
        return {"roll": y.roll, "flip": y.flip, "cumsum": y.cumsum, "softmax": y.softmax}[how](
            *((1, axis) if how == "roll" else (axis,))
        )

    return Step(forward, i=index)


@construct("image")
def shifted_by_channel(d: Draw, x: Example) -> Step | None:
    """Pieces of the channels move in different directions."""
    if x.rank != 4 or x.c < 4:
        return None
    k = x.c // 2
    return Step(lambda m, y: torch.cat([y[:, :k].roll(1, 2), y[:, k:].roll(-1, 3)], 1))


@construct("image")
def coordinates(d: Draw, x: Example) -> Step:
    """Channels with the positions are appended."""
    n, k = len(x.space), d.width()
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, s) for s in x.space), indexing="ij"))[None]
    return Step(
        lambda m, y: m.a(torch.cat([y, m.g.expand(y.shape[0], *m.g.shape[1:])], 1)), a=conv(n, x.c + n, k), g=grid
    )


@construct("any")
def picked_places(d: Draw, x: Example) -> Step | None:
    if x.kind == "vector":
        return None
    axis = d.pick(*x.places)
    index = torch.tensor(d.subset(x.shape[axis]))
    if d.chance():
        return Step(lambda m, y: y.index_select(axis, m.i), i=index)
    return Step(lambda m, y: y[(slice(None),) * axis + (m.i,)], i=index)


@construct("image")
def axis_means(d: Draw, x: Example) -> Step | None:
    """Coordinate attention: means along each axis, concatenated, mixed, split."""
    if x.rank != 4:
        return None
    (h, w), k = x.space, d.width()

    def forward(m: Any, y: Any) -> Any:
        rows, columns = y.mean(3, keepdim=True), y.mean(2, keepdim=True).transpose(2, 3)
        z = torch.relu(m.a(torch.cat([rows, columns], 2)))
        p, q = z.split([h, w], 2)
        return y * torch.sigmoid(m.b(p)) * torch.sigmoid(m.c(q.permute(0, 1, 3, 2)))

    return Step(forward, a=conv(2, x.c, k, 1), b=conv(2, k, x.c, 1), c=conv(2, k, x.c, 1))


@construct("image", gives="vector")
def bilinear_pooling(d: Draw, x: Example) -> Step:
    k = d.pick(3, 4)
    how = d.pick("bmm", "einsum")

    def forward(m: Any, y: Any) -> Any:
        p, q = m.a(y).flatten(2), m.b(y).flatten(2)
        z = torch.bmm(p, q.transpose(1, 2)) if how == "bmm" else torch.einsum("nct,nkt->nck", p, q)
        return m.o(z.flatten(1))

    return Step(forward, a=dense(x, k), b=dense(x, 5), o=nn.Linear(5 * k, d.width()))
