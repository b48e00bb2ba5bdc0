"""Sums of powers of a tensor's values, index by index, without a copy of the tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 2**17  # values at a time: they stay in the cache


@dataclass(frozen=True)
class Mass:
    """Sums of |w|^p over parts of a tensor, in float64.

    Attributes:
        rows: (rows,) - over each row.
        columns: (blocks, *row) - at each position of a row, over all rows of a block.
    """

    rows: Tensor
    columns: Tensor

    def along(self, dim: int, blocks: int = 1) -> Tensor:
        """The sum at each index of a dim, (blocks * size of the dim,); see :mod:`compress.graph.blocks`."""
        if dim == 0:
            return self.rows
        table = self.columns if blocks > 1 else self.columns.sum(0, keepdim=True)
        others = [d for d in range(1, table.dim()) if d != dim]
        return (table.sum(others) if others else table).flatten()


def mass(tensor: Tensor, p: float, blocks: int = 1) -> Mass:
    """Sums of |w|^p.

    Args:
        tensor: Of one dim or more; ``blocks`` divides its first.
        p: The exponent.
        blocks: In how many blocks of rows other dims than the first count their indices anew.
    """
    flat = tensor.detach().flatten(1) if tensor.dim() > 1 else tensor.detach()[:, None]
    if tensor.dim() == 1:
        powers = _powers(flat, p)
        return Mass(powers[:, 0], powers.reshape(blocks, -1).sum(1))
    rows = torch.empty(len(flat), dtype=torch.float64, device=tensor.device)
    columns = torch.zeros(blocks, flat.shape[1], dtype=torch.float64, device=tensor.device)
    size = len(flat) // blocks
    step = max(1, _CHUNK // max(flat.shape[1], 1))
    for block in range(blocks):
        for start in range(block * size, (block + 1) * size, step):
            chunk = slice(start, min(start + step, (block + 1) * size))
            powers = _powers(flat[chunk], p)
            rows[chunk] = powers.sum(1)
            columns[block] += powers.sum(0)
    return Mass(rows, columns.reshape(blocks, *tensor.shape[1:]))


def _powers(values: Tensor, p: float) -> Tensor:
    values = values.double()
    return values * values if p == 2 else values.abs().pow_(p)
