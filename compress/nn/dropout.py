"""Shift dropout, which keeps the mean of activations whose lowest value is not 0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compress.nn.activations import LOWEST


class ShiftDropout(nn.Module):
    """Dropped activations become the lowest value of the activation, not 0 (Zhang and Li, 2018, arXiv:1807.10117).

    With d = 1 at probability 1 - p and 0 elsewhere, and f the lowest value: ``(d x + (1 - d) f - p f) / (1 - p)``.
    That keeps the mean m of x. It does not keep the variance v, which becomes ``(v + p (m - f)^2) / (1 - p)``. In eval
    mode the input is returned as it is; a network traced in eval mode, such as a pruned one, has no trace of it.

    Args:
        p: Probability of an element to be dropped, 0 to below 1.
        lowest: The activation's lowest value; that of SERLU by default.

    Shape: any; the output has the shape of the input.

    Raises:
        ValueError: ``p`` is out of its range.
    """

    def __init__(self, p: float = 0.5, lowest: float = LOWEST) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be at least 0 and below 1, not {p}")
        self.p = p
        self.lowest = lowest

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return F.dropout(x - self.lowest, self.p) + self.lowest  # the formula above with f taken out

    def extra_repr(self) -> str:
        return f"p={self.p}, lowest={self.lowest:.6g}"
