"""Tokens: positions, class tokens, recurrences, scans; and vectors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct


@construct("tokens")
def position_table(d: Draw, x: Example) -> Step:
    t, c = x.shape[1:]
    how = d.pick("add", "slice", "embedding", "buffer")
    if how == "embedding":
        return Step(lambda m, y: y + m.e(torch.arange(y.shape[1])), e=nn.Embedding(t + 2, c))
    if how == "buffer":
        return Step(lambda m, y: y + m.p, p=d.tensor(t, c))
    table = d.parameter(1, t if how == "add" else t + 3, c)
    return Step(lambda m, y: y + (m.p if how == "add" else m.p[:, : y.shape[1]]), p=table)


@construct("tokens")
def class_token(d: Draw, x: Example) -> Step:
    c, expanded = x.c, d.chance()

    def forward(m: Any, y: Any) -> Any:
        token = m.t.expand(y.shape[0], -1, -1) if expanded else m.t.repeat(y.shape[0], 1, 1)
        return torch.cat([token, y], 1)

    return Step(forward, t=d.parameter(1, 1, c))


@construct("tokens")
def first_token_gate(d: Draw, x: Example) -> Step | None:
    if x.shape[1] < 2:
        return None
    return Step(lambda m, y: y[:, 1:] * torch.sigmoid(m.a(y[:, :1])), a=nn.Linear(x.c, x.c))


@construct("tokens")
def recurrent(d: Draw, x: Example) -> Step:
    k, both = d.width(), d.chance(0.3)
    layer = d.pick(nn.LSTM, nn.GRU, nn.RNN)(x.c, k, num_layers=d.pick(1, 2), batch_first=True, bidirectional=both)
    return Step(lambda m, y: m.r(y)[0], r=layer)


@construct("tokens")
def recurrence_written_out(d: Draw, x: Example) -> Step:
    k, t, gated = d.width(), x.shape[1], d.chance()

    def forward(m: Any, y: Any) -> Any:
        h, found = y.new_zeros(y.shape[0], k), []
        for i in range(t):
            if gated:
                z, g = (m.i(y[:, i]) + m.h(h)).chunk(2, 1)
                h = torch.sigmoid(g) * h + torch.tanh(z)
            else:
                h = torch.tanh(m.i(y[:, i])[:, :k] + m.h(h)[:, :k])
            found.append(h)
        return torch.stack(found, 1)

    return Step(forward, i=nn.Linear(x.c, 2 * k), h=nn.Linear(k, 2 * k))


@construct("tokens")
def cell(d: Draw, x: Example) -> Step:
    k = d.width()

    def forward(m: Any, y: Any) -> Any:
        h = torch.zeros(y.shape[0], k)
        found = [h := m.c(y[:, i], h) for i in range(y.shape[1])]
        return torch.stack(found, dim=1)

    return Step(forward, c=nn.GRUCell(x.c, k))


@construct("tokens")
def selective_scan(d: Draw, x: Example) -> Step:
    """A state space layer: a state for every channel, scanned over the tokens."""
    k, s, t = d.width(), 3, x.shape[1]

    def forward(m: Any, y: Any) -> Any:
        u, gate = m.i(y).chunk(2, -1)
        u = F.silu(m.conv(u.transpose(1, 2))[..., :t].transpose(1, 2))
        step, b, c = m.p(u).split([k, s, s], -1)
        step = F.softplus(step)
        decay = torch.exp(-step.unsqueeze(-1) * m.a.abs())
        drive = step.unsqueeze(-1) * b.unsqueeze(2) * u.unsqueeze(-1)
        state, found = torch.zeros_like(drive[:, 0]), []
        for i in range(t):
            state = decay[:, i] * state + drive[:, i]
            found.append((state * c[:, i].unsqueeze(1)).sum(-1))
        z = torch.stack(found, 1) + u * m.d
        return y + m.o(z * F.silu(gate))

    return Step(
        forward, i=nn.Linear(x.c, 2 * k), conv=nn.Conv1d(k, k, 3, padding=2, groups=k), p=nn.Linear(k, k + 2 * s),
        a=d.parameter(k, s), d=d.parameter(k), o=nn.Linear(k, x.c),
    )  # fmt: skip


@construct("tokens")
def convolution_over_tokens(d: Draw, x: Example) -> Step:
    causal, k = d.chance(), d.width()

    def forward(m: Any, y: Any) -> Any:
        z = y.transpose(1, 2)
        z = F.pad(z, (2, 0)) if causal else F.pad(z, (1, 1))
        return torch.relu(m.a(z)).transpose(1, 2)

    return Step(forward, a=nn.Conv1d(x.c, k, 3))


@construct("tokens")
def token_shift(d: Draw, x: Example) -> Step:
    """Every token is mixed with the one before it, by channel (RWKV)."""

    def forward(m: Any, y: Any) -> Any:
        before = F.pad(y, (0, 0, 1, -1))
        return m.a(y * m.g + before * (1 - m.g)) * torch.sigmoid(m.b(torch.lerp(y, before, m.g)))

    k = d.width()
    return Step(forward, g=d.parameter(x.c), a=nn.Linear(x.c, k), b=nn.Linear(x.c, k))


@construct("tokens")
def fourier_mixing(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: y + torch.fft.fft(y, dim=1).real * 0.1)


@construct("tokens")
def top_tokens(d: Draw, x: Example) -> Step | None:
    """The tokens with the highest score are kept, by gather."""
    if x.shape[1] < 3:
        return None

    def forward(m: Any, y: Any) -> Any:
        index = m.s(y).squeeze(-1).topk(2, 1).indices
        return y.gather(1, index.unsqueeze(-1).expand(-1, -1, y.shape[2]))

    return Step(forward, s=nn.Linear(x.c, 1))


@construct("tokens")
def nearest_code(d: Draw, x: Example) -> Step:
    """Vector quantisation: distances to a code book, the nearest code is looked up."""

    def forward(m: Any, y: Any) -> Any:
        distance = (
            torch.cdist(y, m.codes.expand(y.shape[0], -1, -1))
            if m.cdist
            else ((y.unsqueeze(2) - m.codes).pow(2).sum(-1))
        )
        return y + F.embedding(distance.argmin(-1), m.codes)

    return Step(forward, codes=d.parameter(5, x.c), cdist=d.chance(0.3))


@construct("vector")
def bilinear_layer(d: Draw, x: Example) -> Step:
    return Step(lambda m, y: m.b(torch.relu(m.a(y)), y), a=nn.Linear(x.c, 5), b=nn.Bilinear(5, x.c, d.width()))


@construct("vector")
def outer_product(d: Draw, x: Example) -> Step:
    how = d.pick("broadcast", "einsum", "bmm")

    def forward(m: Any, y: Any) -> Any:
        p, q = m.a(y), m.b(y)
        if how == "broadcast":
            z = p[:, :, None] * q[:, None]
        elif how == "einsum":
            z = torch.einsum("ni,nj->nij", p, q)
        else:
            z = torch.bmm(p.unsqueeze(2), q.unsqueeze(1))
        return m.o(z.flatten(1))

    return Step(forward, a=nn.Linear(x.c, 3), b=nn.Linear(x.c, 4), o=nn.Linear(12, d.width()))


@construct("vector")
def pairwise_products(d: Draw, x: Example) -> Step | None:
    """Interactions of factorisation machines: the upper triangle of all pairs of fields."""
    fields, k = d.pick(3, 4), d.pick(2, 4)
    rows, columns = torch.triu_indices(fields, fields, 1)

    def forward(m: Any, y: Any) -> Any:
        z = m.a(y).view(-1, fields, k)
        pairs = z @ z.transpose(1, 2) if product else (z.sum(1).pow(2) - z.pow(2).sum(1))
        if product:
            pairs = pairs[:, m.mask] if masked else pairs[:, m.rows, m.columns]
        return m.o(torch.cat([y, pairs], 1))

    product, masked = d.chance(), d.chance()
    width = x.c + (len(rows) if product else k)
    a, o = nn.Linear(x.c, fields * k), nn.Linear(width, d.width())
    mask = torch.ones(fields, fields).triu(1) > 0
    return Step(forward, a=a, o=o, rows=rows, columns=columns, mask=mask)
