"""Transformer building blocks on 5 tokens of 16 features: heads, features inside heads, and exact slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sdpa = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Block:
    """A forward function, its parts, the sizes of the groups to find, and whether zeroing can check it.

    Zeroing weights is no reference where statistics, or activations that do not vanish at 0, see removed features.
    """

    name: str
    forward: Callable[..., Any]
    parts: Callable[[], dict[str, Any]]
    groups: dict[str, int]
    zeroing: bool = True


def projections(width: int = 24, shared: int = 24) -> dict[str, Any]:
    return {
        "q": nn.Linear(16, width),
        "k": nn.Linear(16, shared),
        "v": nn.Linear(16, shared),
        "o": nn.Linear(width, 3),
    }


def heads(x: Any, count: int = 4, size: int = 6) -> Any:
    return x.view(x.shape[0], 5, count, size).transpose(1, 2)


def packed(m: Any, x: Any) -> Any:
    n, t, _ = x.shape
    q, k, v = m.qkv(x).reshape(n, t, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return m.o(sdpa(q, k, v).transpose(1, 2).flatten(2))


def written_out(m: Any, x: Any) -> Any:
    q, k, v = heads(m.q(x)), heads(m.k(x)), heads(m.v(x))
    weights = (q @ k.transpose(-2, -1) * 6**-0.5).softmax(-1)
    return m.o((weights @ v).transpose(1, 2).reshape(x.shape[0], 5, 24))


def folded(m: Any, x: Any) -> Any:
    """Batch and heads share one dim, whose size is computed from the dynamic batch."""
    n = x.shape[0]
    q, k, v = (heads(f(x)).reshape(n * 4, 5, 6) for f in (m.q, m.k, m.v))
    weights = torch.bmm(q, k.transpose(1, 2)).softmax(-1)
    return m.o(torch.bmm(weights, v).view(n, 4, 5, 6).transpose(1, 2).reshape(n, 5, 24))


def folded_with_bias(m: Any, x: Any) -> Any:
    n = x.shape[0]
    q, k, v = (heads(f(x)).reshape(n * 4, 5, 6) for f in (m.q, m.k, m.v))
    bias = m.bias.expand(n, -1, -1, -1).reshape(n * 4, 5, 5)
    weights = torch.baddbmm(bias, q, k.transpose(1, 2)).softmax(-1)
    return m.o(torch.bmm(weights, v).view(n, 4, 5, 6).transpose(1, 2).reshape(n, 5, 24))


def grouped_query(m: Any, x: Any) -> Any:
    q, k, v = heads(m.q(x)), heads(m.k(x), 2), heads(m.v(x), 2)
    return m.o(sdpa(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).reshape(x.shape[0], 5, 24))


def grouped_expand(m: Any, x: Any) -> Any:
    n = x.shape[0]
    k, v = (heads(f(x), 2)[:, :, None].expand(n, 2, 2, 5, 6).reshape(n, 4, 5, 6) for f in (m.k, m.v))
    return m.o(sdpa(heads(m.q(x)), k, v).transpose(1, 2).reshape(n, 5, 24))


def grouped_interleave(m: Any, x: Any) -> Any:
    k, v = (heads(f(x), 2).repeat_interleave(2, 1) for f in (m.k, m.v))
    return m.o(sdpa(heads(m.q(x)), k, v).transpose(1, 2).reshape(x.shape[0], 5, 24))


def multi_query(m: Any, x: Any) -> Any:
    k, v = m.kv(x)[:, None].chunk(2, -1)
    return m.o(sdpa(heads(m.q(x)), k, v).transpose(1, 2).flatten(2))


def rotary(m: Any, x: Any) -> Any:
    def turned(t: Any) -> Any:
        return t * m.cos + torch.cat([-t[..., 3:], t[..., :3]], -1) * m.sin

    y = sdpa(turned(heads(m.q(x))), turned(heads(m.k(x))), heads(m.v(x)))
    return m.o(y.transpose(1, 2).flatten(2))


def rotary_of_a_share(m: Any, x: Any) -> Any:
    """The first features are turned, the others pass; here all are, and what passes is empty."""

    def turned(t: Any) -> Any:
        first, rest = t[..., :6], t[..., 6:]
        y = first * m.cos + torch.cat([-first[..., 3:], first[..., :3]], -1) * m.sin
        return torch.cat([y, rest], -1)

    y = sdpa(turned(heads(m.q(x))), turned(heads(m.k(x))), heads(m.v(x)))
    return m.o(y.transpose(1, 2).flatten(2))


def rotary_pairs(m: Any, x: Any) -> Any:
    def turned(t: Any) -> Any:
        a, b = t.reshape(*t.shape[:3], 3, 2).unbind(-1)
        return torch.stack([a * m.cos - b * m.sin, a * m.sin + b * m.cos], -1).flatten(3)

    y = sdpa(turned(heads(m.q(x))), turned(heads(m.k(x))), heads(m.v(x)))
    return m.o(y.transpose(1, 2).flatten(2))


def query_key_norm(m: Any, x: Any) -> Any:
    y = sdpa(m.nq(heads(m.q(x))), m.nk(heads(m.k(x))), heads(m.v(x)))
    return m.o(y.transpose(1, 2).flatten(2))


def cosine(m: Any, x: Any) -> Any:
    q, k = F.normalize(heads(m.q(x)), dim=-1), F.normalize(heads(m.k(x)), dim=-1)
    weights = (q @ k.transpose(-2, -1) * m.scale.exp()).softmax(-1)
    return m.o((weights @ heads(m.v(x))).transpose(1, 2).flatten(2))


def by_einsum(m: Any, x: Any) -> Any:
    q, k, v = (f(x).view(x.shape[0], 5, 4, 6) for f in (m.q, m.k, m.v))
    weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
    return m.o(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))


def linear_attention(m: Any, x: Any) -> Any:
    q, k, v = (f(x).view(x.shape[0], 5, 4, 6) for f in (m.q, m.k, m.v))
    state = torch.einsum("bshd,bshe->bhde", F.elu(k) + 1, v)
    return m.o(torch.einsum("bthd,bhde->bthe", F.elu(q) + 1, state).flatten(2))


def normalised_linear_attention(m: Any, x: Any) -> Any:
    """A feature of ones, put beside the values, sums up the weights."""
    q, k, v = (heads(f(x)) for f in (m.q, m.k, m.v))
    state = F.relu(k).transpose(-1, -2) @ F.pad(v, (0, 1), value=1.0)
    y = F.relu(q) @ state
    return m.o((y[..., :-1] / (y[..., -1:] + 1)).transpose(1, 2).flatten(2))


def talking_heads(m: Any, x: Any) -> Any:
    weights = m.mix((heads(m.q(x)) @ heads(m.k(x)).transpose(-2, -1)).softmax(-1))
    return m.o((weights @ heads(m.v(x))).transpose(1, 2).flatten(2))


def windows(m: Any, x: Any) -> Any:
    """4 x 4 positions in windows of 2 x 2 and back."""
    y = m.i(x)[:, :, None].expand(-1, -1, 4, -1)[:, :4].reshape(x.shape[0], 16, 8)
    n, _, c = y.shape
    y = y.view(n, 2, 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    y = m.a(y).view(n, 2, 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, 16, -1)
    return m.o(y)


def class_token(m: Any, x: Any) -> Any:
    t = torch.cat([m.token.expand(x.shape[0], -1, -1), m.i(x)], 1) + m.positions
    t = t + m.b(F.relu(m.a(t)))
    return m.o(t[:, 0])


def mixture(m: Any, x: Any) -> Any:
    y = torch.einsum("btef,efd->bted", torch.relu(torch.einsum("btd,edf->btef", x, m.w1)), m.w2)
    return m.o((y * m.router(x).softmax(-1)[..., None]).sum(2))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


FEATURES = {"q": 24, "q.blocks": 4, "v": 24}
BLOCKS = [
    Block("packed", packed, lambda: {"qkv": nn.Linear(16, 48), "o": nn.Linear(16, 3)}, {"qkv.blocks": 4, "qkv": 16}),
    Block("written out", written_out, projections, FEATURES),
    Block("heads folded into the batch", folded, projections, FEATURES),
    Block("folded with bias", folded_with_bias, lambda: {**projections(), "bias": parameter(4, 5, 5)}, FEATURES),
    Block("grouped query", grouped_query, lambda: projections(24, 12), {"q": 12, "q.blocks": 2, "v": 12}),
    Block("grouped by expand", grouped_expand, lambda: projections(24, 12), {"q": 12, "q.blocks": 2, "v": 12}),
    Block("grouped by interleave", grouped_interleave, lambda: projections(24, 12), {"q": 12, "q.blocks": 2}),
    Block(
        "multi query",
        multi_query,
        lambda: {"q": nn.Linear(16, 24), "kv": nn.Linear(16, 12), "o": nn.Linear(24, 3)},
        {"q": 6, "q.blocks": 4, "kv": 6},
    ),
    Block(
        "rotary",
        rotary,
        lambda: {**projections(), "cos": torch.zeros(5, 6), "sin": torch.zeros(5, 6)},
        {"q": 3, "q.blocks": 4, "v": 24},
    ),
    Block(
        "rotary of a share",
        rotary_of_a_share,
        lambda: {**projections(), "cos": torch.zeros(5, 6), "sin": torch.zeros(5, 6)},
        {"q": 3, "q.blocks": 4, "v": 24},
    ),
    Block(
        "rotary pairs",
        rotary_pairs,
        lambda: {**projections(), "cos": torch.zeros(5, 3), "sin": torch.zeros(5, 3)},
        {"q.blocks": 3, "q.blocks#2": 4, "v": 24},
    ),
    Block(
        "query and key norm",
        query_key_norm,
        lambda: {**projections(), "nq": nn.LayerNorm(6), "nk": nn.RMSNorm(6)},
        {"q": 6, "q.blocks": 4, "v": 24},
        zeroing=False,
    ),
    Block("cosine", cosine, lambda: {**projections(), "scale": parameter(4, 1, 1)}, FEATURES),
    Block("einsum", by_einsum, projections, FEATURES),
    Block("linear attention", linear_attention, projections, FEATURES, zeroing=False),
    Block("normalised linear attention", normalised_linear_attention, projections, FEATURES),
    Block("talking heads", talking_heads, lambda: {**projections(), "mix": nn.Conv2d(4, 4, 1)}, {"v.blocks": 4}),
    Block(
        "attention layer",
        lambda m, x: m.o(m.a(m.i(x), x, x, need_weights=False)[0]),
        lambda: {"i": nn.Linear(16, 16), "a": nn.MultiheadAttention(16, 4, batch_first=True), "o": nn.Linear(16, 3)},
        {"a.in_proj_weight.blocks": 4, "a.in_proj_weight": 16, "a.out_proj": 16},
    ),
    Block(
        "encoder layer",
        lambda m, x: m.o(m.e(m.i(x))),
        lambda: {
            "i": nn.Linear(16, 16),
            "e": nn.TransformerEncoderLayer(16, 4, 24, batch_first=True),
            "o": nn.Linear(16, 3),
        },
        {"i": 16, "e.self_attn.in_proj_weight.blocks": 4, "e.linear1": 24},
        zeroing=False,
    ),
    Block("windows", windows, lambda: {"i": nn.Linear(16, 8), "a": nn.Linear(8, 10), "o": nn.Linear(10, 2)}, {"i": 8}),
    Block(
        "class token",
        class_token,
        lambda: {
            "i": nn.Linear(16, 12),
            "a": nn.Linear(12, 7),
            "b": nn.Linear(7, 12),
            "token": parameter(1, 1, 12),
            "positions": parameter(1, 6, 12),
            "o": nn.Linear(12, 2),
        },
        {"i": 12, "a": 7},
    ),
    Block(
        "mixture of experts",
        mixture,
        lambda: {
            "router": nn.Linear(16, 3),
            "w1": parameter(3, 16, 8),
            "w2": parameter(3, 8, 10),
            "o": nn.Linear(10, 2),
            "groups": 3,
        },
        {"w1": 24, "w2": 10},
    ),
    Block(
        "token mixing",
        lambda m, x: m.o(m.i(x) + m.t2(F.gelu(m.t1(m.i(x).transpose(1, 2)))).transpose(1, 2)),
        lambda: {"i": nn.Linear(16, 12), "t1": nn.Linear(5, 9), "t2": nn.Linear(9, 5), "o": nn.Linear(12, 2)},
        {"i": 12, "t1": 9},
    ),
    Block(
        "gated feed-forward",
        lambda m, x: m.d(F.silu(m.g(x)) * m.u(x)),
        lambda: {"g": nn.Linear(16, 24), "u": nn.Linear(16, 24), "d": nn.Linear(24, 3)},
        {"g": 24},
    ),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.name)
def test_slice_is_exact(lab: Any, block: Block) -> None:
    module = lab.network(block.forward, **block.parts())
    lab.check(module, torch.randn(2, 5, 16), groups=block.groups, zeroing=block.zeroing)


def test_attention_scale_stays_that_of_the_training(lab: Any) -> None:
    outcome = lab.prune(lab.network(grouped_query, **projections(24, 12)), torch.randn(2, 5, 16), ratio=0.5)
    call = next(n for n in outcome.sliced.graph.nodes if "scaled_dot" in str(n.target))
    assert call.kwargs["scale"] == pytest.approx(6**-0.5)
    query = next(iter(outcome.coupling.kept(outcome.alive)["q.weight"].values()))
    assert len(query) < 24
