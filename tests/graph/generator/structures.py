"""Larger patterns from papers: pooling by statistics, graphs, pairs, capsules, routing."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct, conv, dense


@construct("any", gives="vector")
def pooled_statistics(d: Draw, x: Example) -> Step | None:
    """Mean and deviation over the places side by side, plain or weighed by attention."""
    dims = x.places
    if not dims or math.prod(x.shape[p] for p in dims) < 2:
        return None
    weighed = d.chance() and x.kind == "tokens"

    def forward(m: Any, y: Any) -> Any:
        if weighed:
            w = m.s(torch.tanh(m.a(y))).softmax(1)
            mean = (w * y).sum(1)
            return torch.cat([mean, ((w * y.pow(2)).sum(1) - mean.pow(2)).clamp(min=1e-4).sqrt()], 1)
        return torch.cat([y.mean(dims), y.std(dims)], 1)

    k = d.width()
    return Step(forward, a=dense(x, k), s=dense(x, 1, inputs=k))


@construct("image", gives="tokens")
def rows_as_tokens(d: Draw, x: Example) -> Step | None:
    """One axis becomes time, channels and the other axis become features (speech)."""
    if x.rank != 4:
        return None
    first = d.chance()
    a = nn.Linear(x.c * x.space[0], d.width())
    if first:
        return Step(lambda m, y: m.a(y.permute(0, 3, 1, 2).flatten(2)), a=a)
    return Step(lambda m, y: m.a(y.permute(0, 3, 2, 1).flatten(2)), a=a)


@construct("tokens")
def graph_convolution(d: Draw, x: Example) -> Step:
    t, how = x.shape[1], d.pick("matrix", "edges", "attention")
    adjacency = (d.tensor(t, t) > 0).float() / t
    source, target = torch.tensor(d.order(t) + d.order(t)), torch.tensor(d.order(t) + d.order(t))
    k = d.width()

    def forward(m: Any, y: Any) -> Any:
        z = m.a(y)
        if how == "matrix":
            return torch.relu(m.adjacency @ z)
        if how == "edges":
            messages = torch.relu(z[:, m.source] + m.b(y)[:, m.target])
            return torch.zeros_like(z).index_add(1, m.target, messages) + z
        scores = m.s(z) + m.t(z).transpose(1, 2)
        return F.leaky_relu(scores).softmax(-1) @ z

    parts = {"a": nn.Linear(x.c, k), "b": nn.Linear(x.c, k), "s": nn.Linear(k, 1), "t": nn.Linear(k, 1)}
    return Step(forward, **parts, adjacency=adjacency, source=source, target=target)


@construct("tokens")
def pairs_of_tokens(d: Draw, x: Example) -> Step | None:
    """Features of every pair of tokens, multiplied along triangles, summed again."""
    t, k = x.shape[1], d.width()
    if t * t * k > 1500:
        return None
    how = d.pick("sum", "product", "triangle", "cat")

    def forward(m: Any, y: Any) -> Any:
        p, q = m.p(y), m.q(y)
        if how == "cat":
            z = torch.cat([p[:, :, None].expand(-1, -1, t, -1), q[:, None].expand(-1, t, -1, -1)], -1)
            return m.wide(torch.relu(z)).sum(2)
        z = p[:, :, None] * q[:, None] if how == "product" else torch.relu(p[:, :, None] + q.unsqueeze(1))
        if how == "triangle":
            z = z + torch.einsum("nikc,njkc->nijc", torch.sigmoid(m.g(z)) * z, z) / t
        return m.o(z.mean(2))

    out = d.width()
    return Step(
        forward, p=nn.Linear(x.c, k), q=nn.Linear(x.c, k), g=nn.Linear(k, k), o=nn.Linear(k, out),
        wide=nn.Linear(2 * k, out),
    )  # fmt: skip


@construct("tokens", gives="vector")
def soft_assignment(d: Draw, x: Example) -> Step:
    """Residuals to cluster centres, weighed by a softmax over the clusters (NetVLAD)."""
    k = d.pick(3, 4)

    def forward(m: Any, y: Any) -> Any:
        weights = m.a(y).softmax(-1)
        z = torch.einsum("ntk,ntc->nkc", weights, y) - weights.sum(1).unsqueeze(-1) * m.centres
        return m.o(F.normalize(z, dim=-1, eps=1e-6).flatten(1))

    return Step(forward, a=nn.Linear(x.c, k), centres=d.parameter(k, x.c), o=nn.Linear(k * x.c, d.width()))


@construct("vector")
def capsules(d: Draw, x: Example) -> Step:
    n, e, out, f = d.pick(3, 4), d.pick(2, 4), 3, d.pick(2, 3)

    def forward(m: Any, y: Any) -> Any:
        u = m.a(y).view(-1, n, e)
        votes = torch.einsum("nie,ioef->niof", u, m.w)
        s = (votes * m.b.softmax(1).unsqueeze(-1)).sum(1)
        size = s.norm(dim=-1, keepdim=True)
        return (s * size / (1 + size**2)).flatten(1)

    return Step(forward, a=nn.Linear(x.c, n * e), w=d.parameter(n, out, e, f), b=d.parameter(n, out))


@construct("any")
def best_experts(d: Draw, x: Example) -> Step | None:
    """Only the two best gates count: top-k, scattered into zeros."""
    if x.kind == "image":
        return None
    k = d.width()

    def forward(m: Any, y: Any) -> Any:
        logits = m.r(y)
        values, index = logits.topk(2, -1)
        gates = torch.zeros_like(logits).scatter(-1, index, values.softmax(-1))
        every = torch.stack([layer(y) for layer in m.layers], -1)
        return (every * gates.unsqueeze(-2)).sum(-1)

    return Step(forward, r=nn.Linear(x.c, 3), layers=nn.ModuleList(nn.Linear(x.c, k) for _ in range(3)))


@construct("image")
def spatial_transformer(d: Draw, x: Example) -> Step | None:
    if x.rank != 4:
        return None

    def forward(m: Any, y: Any) -> Any:
        theta = torch.tanh(m.t(y.mean((2, 3)))).view(-1, 2, 3)
        return F.grid_sample(y, F.affine_grid(theta, list(y.shape), align_corners=False), align_corners=False)

    return Step(forward, t=nn.Linear(x.c, 6))


@construct("image")
def pooled_and_unpooled(d: Draw, x: Example) -> Step | None:
    if x.rank != 4 or any(n % 2 for n in x.space):
        return None

    def forward(m: Any, y: Any) -> Any:
        small, where = F.max_pool2d(m.a(y), 2, return_indices=True)
        return F.max_unpool2d(torch.relu(small), where, [2, 2])

    return Step(forward, a=dense(x, d.width()))


@construct("image")
def channel_and_spatial_gates(d: Draw, x: Example) -> Step:
    """The block attention module as it was published, with torch.max."""
    n, dims, small = len(x.space), tuple(range(2, x.rank)), d.width()
    pool = getattr(F, f"adaptive_max_pool{n}d")

    def forward(m: Any, y: Any) -> Any:
        y = y * torch.sigmoid(m.mlp(y.mean(dims, keepdim=True)) + m.mlp(pool(y, 1)))
        both = torch.cat([torch.max(y, 1)[0].unsqueeze(1), torch.mean(y, 1).unsqueeze(1)], dim=1)
        return y * torch.sigmoid(m.a(both))

    return Step(forward, mlp=nn.Sequential(conv(n, x.c, small, 1), nn.ReLU(), conv(n, small, x.c, 1)), a=conv(n, 2, 1))


@construct("any")
def similarity_to_prototypes(d: Draw, x: Example) -> Step | None:
    if x.kind == "image":
        return None
    how = d.pick("function", "normalised", "distance")

    def forward(m: Any, y: Any) -> Any:
        if how == "function":
            z = F.cosine_similarity(y.unsqueeze(-2), m.w, dim=-1)
        elif how == "normalised":
            z = F.linear(F.normalize(y, dim=-1, eps=1e-6), F.normalize(m.w, dim=-1, eps=1e-6))
        else:
            z = -F.pairwise_distance(y.unsqueeze(-2), m.w)
        return m.o(z * 4)

    k = d.width()
    return Step(forward, w=d.parameter(k, x.c), o=nn.Linear(k, d.width()))


@construct("any")
def frequencies_of_features(d: Draw, x: Example) -> Step | None:
    """Sines and cosines at several scales, side by side (NeRF)."""
    axis = x.axis
    if not d.fits(x, 4):
        return None
    return Step(
        lambda m, y: torch.cat([f(2**i * torch.tanh(y)) for i in range(2) for f in (torch.sin, torch.cos)], axis)
    )


@construct("any")
def shared_block_in_a_loop(d: Draw, x: Example) -> Step:
    """An equilibrium or a differential equation: the same layers again and again."""
    a, b, k = dense(x, 2 * x.c), dense(x, x.c, inputs=2 * x.c), d.pick(2, 3)

    def forward(m: Any, y: Any) -> Any:
        z = torch.zeros_like(y)
        for _ in range(k):
            z = z + 0.3 * torch.tanh(m.b(torch.relu(m.a(z + y))))
        return z

    return Step(forward, a=a, b=b)


@construct("any")
def halves_swapped(d: Draw, x: Example) -> Step | None:
    """Coupling layers of a flow: each half changes the other."""
    if x.c % 2 or x.c < 4:
        return None
    axis, half, logs = x.axis, x.c // 2, d.chance()

    def forward(m: Any, y: Any) -> Any:
        a, b = torch.chunk(y, 2, axis)
        if logs:
            scale, shift = m.s(torch.tanh(m.f(a))).chunk(2, axis)
            b = b * torch.exp(torch.tanh(scale)) + shift
        else:
            b = b + m.f(a)
        return torch.cat([b, a], axis)

    return Step(forward, f=dense(x, half, inputs=half), s=dense(x, 2 * half, inputs=half))


@construct("tokens")
def complex_rotation(d: Draw, x: Example) -> Step | None:
    """Rotary embedding by complex numbers."""
    h, e, t = d.pick(2, 3), 4, x.shape[1]
    angle = torch.outer(torch.arange(t).float(), 1 / 5 ** torch.linspace(0, 1, e // 2))

    def rotate(m: Any, z: Any) -> Any:
        pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(m.angle), m.angle)).flatten(-2)

    def forward(m: Any, y: Any) -> Any:
        q, k, v = (p(y).view(*y.shape[:2], h, e).transpose(1, 2) for p in (m.q, m.k, m.v))
        z = F.scaled_dot_product_attention(rotate(m, q), rotate(m, k), v, is_causal=True)
        return y + m.o(z.transpose(1, 2).flatten(2))

    return Step(forward, **{n: nn.Linear(x.c, h * e) for n in "qkv"}, o=nn.Linear(h * e, x.c), angle=angle)


@construct("tokens")
def triangular_mixing(d: Draw, x: Example) -> Step:
    """A causal matrix over the tokens, and tokens written by index."""
    t, how = x.shape[1], d.pick("tril", "written", "diagonal")

    def forward(m: Any, y: Any) -> Any:
        if how == "tril":
            return torch.tril(m.w) @ m.a(y)
        if how == "written":
            z = m.a(y).clone()
            z[:, m.i] = torch.tanh(y[:, m.i] @ m.a.weight.t())
            return z
        scores = m.a(y) @ m.a(y).transpose(1, 2)
        return m.a(y) * torch.diagonal(scores, dim1=1, dim2=2).unsqueeze(-1)

    return Step(forward, w=d.parameter(t, t), a=nn.Linear(x.c, d.width()), i=torch.tensor(d.subset(t)))


@construct("any")
def stacked_sideways(d: Draw, x: Example) -> Step | None:
    if x.kind == "image" or not d.fits(x, 2):
        return None
    how = d.pick("hstack", "column_stack", "concat")

    def forward(m: Any, y: Any) -> Any:
        z = y if y.dim() == 2 else y.transpose(1, 2)
        found = torch.concat((z, m.s * z), dim=1) if how == "concat" else getattr(torch, how)([z, m.s * z])
        return found if y.dim() == 2 else found.transpose(1, 2)

    return Step(forward, s=d.parameter(1))
