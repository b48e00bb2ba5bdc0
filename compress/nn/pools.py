"""Units that compete within pools of neighbours."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn


class _Pools(nn.Module):
    """Pools of ``pool`` neighbouring indices along ``dim``."""

    def __init__(self, pool: int, dim: int) -> None:
        super().__init__()
        if pool < 1:
            raise ValueError(f"pool must be at least 1, not {pool}")
        self.pool = pool
        self.dim = dim

    def _split(self, x: Tensor) -> tuple[Tensor, int]:
        """``x`` with ``dim`` split into (pools, pool), and where the latter is."""
        dim = self.dim % x.dim()
        if x.shape[dim] % self.pool:
            raise ValueError(f"dim {self.dim} has {x.shape[dim]} indices, which makes no whole pools of {self.pool}")
        return x.unflatten(dim, (-1, self.pool)), dim + 1

    def extra_repr(self) -> str:
        return f"{self.pool}, dim={self.dim}"


class Maxout(_Pools):
    """The largest of every ``pool`` neighbouring units (Goodfellow et al., 2013, arXiv:1302.4389).

    Its pieces are compared two by two and not by one maximum along a dim, of which pruning would take single pieces:
    a piece with small weights may still win, so pools go as a whole.

    Args:
        pool: Units that compete, k.
        dim: The dim of the units, 1 for (N, F) and (N, C, H, W).

    Shape: (N, F, ...) to (N, F / k, ...).

    Raises:
        ValueError: ``pool`` is below 1; at the first input, its size along ``dim`` is no multiple of ``pool``.
    """

    def __init__(self, pool: int, dim: int = 1) -> None:
        super().__init__(pool, dim)

    def forward(self, x: Tensor) -> Tensor:
        pools, within = self._split(x)
        return reduce(torch.maximum, pools.unbind(within))


class ChannelOut(_Pools):
    """Of every ``pool`` neighbouring units the largest passes and the others become 0; of equals the first passes.

    Wang and JaJa, 2013, arXiv:1312.1909.

    Args:
        pool: Units that compete, k.
        absmax: The largest magnitude passes instead, with its sign.
        dim: The dim of the units, 1 for (N, F) and (N, C, H, W).

    Shape: (N, F, ...); the output has the shape of the input, with F / k units that are not 0.

    Raises:
        ValueError: ``pool`` is below 1; at the first input, its size along ``dim`` is no multiple of ``pool``.
    """

    def __init__(self, pool: int, absmax: bool = False, dim: int = 1) -> None:
        super().__init__(pool, dim)
        self.absmax = absmax

    def forward(self, x: Tensor) -> Tensor:
        pools, within = self._split(x)
        winner = (pools.abs() if self.absmax else pools).argmax(within, keepdim=True)
        places = torch.arange(self.pool, device=x.device).reshape(-1, *[1] * (pools.dim() - 1 - within))
        return torch.where(places == winner, pools, 0.0).flatten(within - 1, within)

    def extra_repr(self) -> str:
        return f"{self.pool}, absmax={self.absmax}, dim={self.dim}"
