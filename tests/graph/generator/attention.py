"""Attention in its many layouts, on tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct


def heads(d: Draw) -> tuple[int, int]:
    """Number of heads, and features in each."""
    return d.pick(2, 3, 4), d.pick(2, 3, 4)


def mixed(how: str, q: Any, k: Any, v: Any, extra: Any = None) -> Any:
    """Attention over (N, heads, T, features), as one call or written out."""
    if how == "fused":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=extra)
    if how == "einsum":
        scores = torch.einsum("nhtd,nhsd->nhts", q, k) / math.sqrt(q.shape[-1])
    elif how == "baddbmm":
        flat = [z.flatten(0, 1) for z in (q, k)]
        scores = torch.bmm(flat[0], flat[1].transpose(1, 2)).unflatten(0, q.shape[:2]) * 0.5
    else:
        scores = (q * 0.5) @ k.transpose(-2, -1)
    weights = (scores if extra is None else scores + extra).softmax(-1)
    return torch.einsum("nhts,nhsd->nhtd", weights, v) if how == "einsum" else weights @ v


HOW = ("fused", "written out", "einsum", "baddbmm")


@construct("tokens")
def packed_attention(d: Draw, x: Example) -> Step:
    (h, e), how = heads(d), d.pick(*HOW)
    layout = d.pick("unflatten", "heads first", "chunk", "split", "features first", "einops")

    def forward(m: Any, y: Any) -> Any:
        z = m.qkv(m.n(y))
        if layout == "unflatten":
            q, k, v = z.unflatten(2, (3, h, e)).permute(2, 0, 3, 1, 4).unbind(0)
        elif layout == "heads first":
            q, k, v = z.view(*z.shape[:2], h, 3 * e).transpose(1, 2).chunk(3, -1)
        elif layout == "features first":
            q, k, v = z.unflatten(2, (e, 3, h)).permute(3, 0, 4, 1, 2)
        elif layout == "einops":
            q, k, v = (p[:, :, :, i] for p in [z.unflatten(2, (h, 3, e)).transpose(1, 2)] for i in range(3))
        else:
            parts = z.chunk(3, -1) if layout == "chunk" else z.split(h * e, -1)
            q, k, v = (p.reshape(y.shape[0], -1, h, e).transpose(1, 2) for p in parts)
        return y + m.o(mixed(how, q, k, v).transpose(1, 2).flatten(2))

    return Step(forward, n=nn.LayerNorm(x.c), qkv=nn.Linear(x.c, 3 * h * e, bias=d.chance()), o=nn.Linear(h * e, x.c))


@construct("tokens", "tokens")
def cross_attention(d: Draw, x: Example, y: Example) -> Step:
    (h, e), how, norm = heads(d), d.pick(*HOW), d.chance(0.3)
    f = d.pick(e, e + 1)  # values may be wider than keys

    def forward(m: Any, a: Any, b: Any) -> Any:
        q, k = (p.unflatten(2, (h, e)).transpose(1, 2) for p in (m.q(a), m.k(b)))
        v = m.v(b).unflatten(2, (h, f)).transpose(1, 2)
        if norm:
            q, k = m.qn(q), m.kn(k)
        return a + m.o(mixed(how, q, k, v).transpose(1, 2).reshape(*a.shape[:2], -1))

    parts = {"q": nn.Linear(x.c, h * e), "k": nn.Linear(y.c, h * e), "v": nn.Linear(y.c, h * f)}
    norms = {"qn": nn.LayerNorm(e), "kn": nn.RMSNorm(e)} if norm else {}
    return Step(forward, **parts, **norms, o=nn.Linear(h * f, x.c))


@construct("tokens")
def grouped_query_attention(d: Draw, x: Example) -> Step:
    h, e, shared = d.pick(4, 6), d.pick(2, 4), d.pick(1, 2)
    how = d.pick("enable_gqa", "interleave", "expand", "view", "broadcast")
    times = h // shared

    def forward(m: Any, y: Any) -> Any:
        q = m.q(y).unflatten(2, (h, e)).transpose(1, 2)
        k, v = (p.unflatten(2, (shared, e)).transpose(1, 2) for p in (m.k(y), m.v(y)))
        if how == "enable_gqa":
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        elif how == "interleave":
            z = mixed("written out", q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1))
        elif how == "expand":
            t = y.shape[1]
            k, v = (p[:, :, None].expand(-1, -1, times, -1, -1).reshape(-1, h, t, e) for p in (k, v))
            z = mixed("fused", q, k, v)
        elif how == "view":
            q = q.reshape(q.shape[0], shared, times, -1, e)
            scores = (q @ k.unsqueeze(2).transpose(-1, -2)).softmax(-1)
            z = (scores @ v.unsqueeze(2)).flatten(1, 2)
        else:
            z = mixed("written out", q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1))
        return y + m.o(z.transpose(1, 2).flatten(2))

    return Step(
        forward, q=nn.Linear(x.c, h * e), k=nn.Linear(x.c, shared * e), v=nn.Linear(x.c, shared * e),
        o=nn.Linear(h * e, x.c),
    )  # fmt: skip


@construct("tokens")
def rotary_attention(d: Draw, x: Example) -> Step:
    h, e, t = d.pick(2, 3), d.pick(2, 4), x.shape[1]
    how = d.pick("halves", "pairs", "interleave", "partial")
    r = e // 2 if how == "partial" and e > 2 else e
    angle = torch.arange(t)[:, None] / 7.0 ** torch.linspace(0, 1, r // 2)
    angle = angle.repeat_interleave(2, 1) if how in ("pairs", "interleave") else torch.cat([angle, angle], 1)

    def turned(z: Any) -> Any:
        if how in ("halves", "partial"):
            a, b = z.chunk(2, -1)
            return torch.cat([-b, a], -1)
        if how == "pairs":
            return torch.stack([-z[..., 1::2], z[..., ::2]], -1).flatten(-2)
        a, b = z.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([-b, a], -1).flatten(-2)

    def rotate(m: Any, z: Any) -> Any:
        front, back = z[..., :r], z[..., r:]
        front = front * m.cos + turned(front) * m.sin
        return torch.cat([front, back], -1) if r < e else front

    def forward(m: Any, y: Any) -> Any:
        q, k, v = (p(y).unflatten(2, (h, e)).transpose(1, 2) for p in (m.q, m.k, m.v))
        z = F.scaled_dot_product_attention(rotate(m, q), rotate(m, k), v)
        return y + m.o(z.transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(x.c, h * e, bias=False) for name in "qkv"}
    return Step(forward, **layers, o=nn.Linear(h * e, x.c), cos=angle.cos(), sin=angle.sin())


@construct("tokens")
def biased_attention(d: Draw, x: Example) -> Step:
    """Relative position bias by index, a mask, or slopes for the heads."""
    (h, e), t, how = heads(d), x.shape[1], d.pick("fused", "written out")
    bias = d.pick("table", "mask", "slopes", "linear", "talking")
    index = (torch.arange(t)[:, None] - torch.arange(t)[None] + t - 1).flatten()
    mask = torch.full((t, t), -1e4).triu(1)

    def extra(m: Any) -> Any:
        if bias == "table":
            return m.table[m.index].view(t, t, h).permute(2, 0, 1).unsqueeze(0)
        if bias == "mask":
            return m.mask
        if bias == "linear":
            return m.mlp(m.mask.unsqueeze(-1) / 1e4).permute(2, 0, 1)
        return m.slopes[:, None, None] * m.mask / 1e4

    def forward(m: Any, y: Any) -> Any:
        q, k, v = m.qkv(y).unflatten(2, (3, h, e)).permute(2, 0, 3, 1, 4)
        if bias == "talking":
            weights = torch.einsum("nhts,hg->ngts", q @ k.transpose(-2, -1), m.talk).softmax(-1)
            z = m.mix(weights) @ v
        else:
            z = mixed(how, q, k, v, extra(m))
        return y + m.o(z.transpose(1, 2).flatten(2))

    return Step(
        forward, qkv=nn.Linear(x.c, 3 * h * e), o=nn.Linear(h * e, x.c), table=d.parameter(2 * t - 1, h),
        index=index, mask=mask, slopes=d.parameter(h), mlp=nn.Linear(1, h), talk=d.parameter(h, h),
        mix=nn.Conv2d(h, h, 1),
    )  # fmt: skip


@construct("tokens")
def linear_attention(d: Draw, x: Example) -> Step:
    (h, e), how = heads(d), d.pick("elu", "softmax", "causal", "normalised")

    def forward(m: Any, y: Any) -> Any:
        q, k, v = (p.unflatten(2, (h, e)).transpose(1, 2) for p in m.qkv(y).chunk(3, 2))
        if how == "elu":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            z = (q @ (k.transpose(-2, -1) @ v)) / (q @ k.sum(2).unsqueeze(-1) + 1e-6)
        elif how == "softmax":
            z = q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)
        elif how == "causal":
            z = torch.einsum("nhtd,nhtde->nhte", q, torch.einsum("nhtd,nhte->nhtde", k, v).cumsum(2))
        else:
            z = F.normalize(q, dim=-1, eps=1e-6) @ (F.normalize(k, dim=-1, eps=1e-6).transpose(-2, -1) @ v)
        return y + m.o(z.transpose(1, 2).flatten(2))

    return Step(forward, qkv=nn.Linear(x.c, 3 * h * e), o=nn.Linear(h * e, x.c))


@construct("tokens")
def channel_attention(d: Draw, x: Example) -> Step:
    """Cross-covariance: features attend to features, with a temperature for each head."""
    h, e = heads(d)

    def forward(m: Any, y: Any) -> Any:
        q, k, v = m.qkv(y).unflatten(2, (3, h, e)).permute(2, 0, 3, 4, 1)
        q, k = F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6)
        weights = ((q @ k.transpose(-2, -1)) * m.t).softmax(-1)
        return y + m.o((weights @ v).permute(0, 3, 1, 2).flatten(2))

    return Step(forward, qkv=nn.Linear(x.c, 3 * h * e), o=nn.Linear(h * e, x.c), t=d.parameter(h, 1, 1))


@construct("tokens")
def multihead_module(d: Draw, x: Example) -> Step | None:
    h = d.divisor(x.c, 1)
    if h is None:
        return None
    a = nn.MultiheadAttention(x.c, h, batch_first=True, bias=d.chance())
    wanted = d.chance()
    return Step(lambda m, y: y + m.a(y, y, y, need_weights=wanted)[0], a=a)


@construct("tokens", "tokens")
def multihead_module_across(d: Draw, x: Example, y: Example) -> Step | None:
    h = d.divisor(x.c, 1)
    if h is None:
        return None
    a = nn.MultiheadAttention(x.c, h, batch_first=True, kdim=y.c, vdim=y.c)
    return Step(lambda m, p, q: p + m.a(p, q, q, need_weights=False)[0], a=a)


@construct("tokens")
def encoder_layer(d: Draw, x: Example) -> Step | None:
    h = d.divisor(x.c, 1)
    if h is None:
        return None
    a = nn.TransformerEncoderLayer(x.c, h, 2 * x.c, 0.0, batch_first=True, norm_first=d.chance())
    return Step(lambda m, y: m.a(y), a=a)


@construct("tokens")
def latent_queries(d: Draw, x: Example) -> Step:
    """A learned set of tokens reads the others."""
    (h, e), t = heads(d), d.pick(2, 4)

    def forward(m: Any, y: Any) -> Any:
        q = m.q(m.latents).unflatten(1, (h, e)).transpose(0, 1).expand(y.shape[0], -1, -1, -1)
        k, v = m.kv(y).unflatten(2, (2, h, e)).permute(2, 0, 3, 1, 4)
        return m.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    parts = {"q": nn.Linear(6, h * e), "kv": nn.Linear(x.c, 2 * h * e), "o": nn.Linear(h * e, d.width())}
    return Step(forward, **parts, latents=d.parameter(t, 6))


@construct("image")
def non_local(d: Draw, x: Example) -> Step:
    k = d.width()

    def forward(m: Any, y: Any) -> Any:
        q, key, v = (layer(y).flatten(2) for layer in (m.q, m.k, m.v))
        z = (q.transpose(1, 2) @ key).softmax(-1) @ v.transpose(1, 2)
        return y + m.o(z.transpose(1, 2).unflatten(2, x.space))

    layers = {name: getattr(nn, f"Conv{len(x.space)}d")(x.c, k, 1) for name in "qkv"}
    return Step(forward, **layers, o=getattr(nn, f"Conv{len(x.space)}d")(k, x.c, 1))


@construct("image")
def window_attention(d: Draw, x: Example) -> Step | None:
    if x.rank != 4 or any(n % 2 for n in x.space):
        return None
    (h, w), (n, e) = x.space, heads(d)
    index = torch.randint(9, (16,), generator=d.numbers)

    def forward(m: Any, y: Any) -> Any:
        z = y.permute(0, 2, 3, 1).view(-1, h // 2, 2, w // 2, 2, x.c).transpose(2, 3).reshape(-1, 4, x.c)
        q, k, v = m.qkv(z).reshape(-1, 4, 3, n, e).permute(2, 0, 3, 1, 4).unbind(0)
        bias = m.table[m.index].view(4, 4, n).permute(2, 0, 1)
        z = m.o((((q @ k.transpose(-2, -1)) + bias).softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, n * e))
        z = z.view(-1, h // 2, w // 2, 2, 2, x.c).transpose(2, 3).reshape(-1, h, w, x.c)
        return y + z.permute(0, 3, 1, 2)

    return Step(forward, qkv=nn.Linear(x.c, 3 * n * e), o=nn.Linear(n * e, x.c), table=d.parameter(9, n), index=index)
