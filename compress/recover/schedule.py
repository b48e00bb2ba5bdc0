"""The learning rate of a step: a warm-up, then a cosine."""

from __future__ import annotations

import math


def factor(step: int, total: int, warmup: int = 0, kind: str = "cosine") -> float:
    """What the highest learning rate is multiplied by.

    Args:
        step: From 0 to ``total - 1``.
        total: Steps in all.
        warmup: Steps over which the factor rises linearly, from ``1 / warmup`` to 1.
        kind: "cosine" - down to (nearly) 0 afterwards (Loshchilov and Hutter, 2017, arXiv:1608.03983);
            "constant" - 1 afterwards.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def warmup_steps(total: int, share: float) -> int:
    """The steps of a warm-up that takes a share of all; one at least where a share is asked for."""
    return min(total, math.ceil(total * share))
