"""Positions gathered into windows, patches and larger tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.generator.draw import Draw, Example, Step, construct


@construct("tokens")
def merged_tokens(d: Draw, x: Example) -> Step | None:
    """Neighbours become one token of twice the width, or one token becomes two."""
    t, c = x.shape[1:]
    if d.chance() and c % 2 == 0:
        return Step(lambda m, y: m.a(y.reshape(-1, 2 * t, c // 2)), a=nn.Linear(c // 2, d.width()))
    if t % 2:
        return None
    if d.chance():
        return Step(lambda m, y: m.a(y.reshape(-1, t // 2, 2 * c)), a=nn.Linear(2 * c, d.width()))
    return Step(lambda m, y: m.a(torch.cat([y[:, 0::2], y[:, 1::2]], -1)), a=nn.Linear(2 * c, d.width()))


@construct("image")
def sliding_windows(d: Draw, x: Example) -> Step | None:
    """Tensor.unfold: a mean over every window."""
    if x.space[-1] < 3:
        return None
    return Step(lambda m, y: y.unfold(-1, 2, 1).mean(-1) if m.mean else y.unfold(-1, 2, 1) @ m.w, w=d.parameter(2),
                mean=d.chance())  # fmt: skip


@construct("image")
def patches(d: Draw, x: Example) -> Step | None:
    """Non-overlapping patches by unfold, mixed and folded back."""
    if x.rank != 4 or any(n % 2 for n in x.space):
        return None
    k, (h, w) = 4 * x.c, x.space

    def forward(m: Any, y: Any) -> Any:
        p = m.a(F.unfold(y, 2, stride=2).transpose(1, 2)).transpose(1, 2)
        return F.fold(p, (h, w), 2, stride=2)

    return Step(forward, a=nn.Linear(k, k))


@construct("image")
def windows(d: Draw, x: Example) -> Step | None:
    """Positions split into windows that join the batch, and back."""
    if x.rank != 4 or any(n % 2 or n < 4 for n in x.space):
        return None
    h, w = x.space
    shift = d.chance()

    def forward(m: Any, y: Any) -> Any:
        z = y.permute(0, 2, 3, 1)
        z = torch.roll(z, (-1, -1), (1, 2)) if shift else z
        z = z.reshape(-1, h // 2, 2, w // 2, 2, x.c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, x.c)
        z = m.b(m.n(z).transpose(1, 2)).transpose(1, 2)
        z = z.view(-1, h // 2, w // 2, 2, 2, x.c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.c)
        z = torch.roll(z, (1, 1), (1, 2)) if shift else z
        return y + z.permute(0, 3, 1, 2)

    return Step(forward, n=nn.LayerNorm(x.c), b=nn.Linear(4, 4))
