"""Operations that PyTorch has in low precision only, written out so that they can be judged in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def grouped_product(
    x: Tensor, weights: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Rows of ``x`` (S, K) up to ``offs[0]`` times ``weights[0]`` (K, N), the next up to ``offs[1]`` times the next.

    Rows behind the last offset are zero.

    Raises:
        NotImplementedError: Operands of other ranks.
    """
    if x.dim() != 2 or weights.dim() != 3 or offs is None:
        raise NotImplementedError("a grouped product of other ranks than (S, K) and (E, K, N) in float64")
    out = x.new_zeros(x.shape[0], weights.shape[2])
    start = 0
    for stop, weight in zip(offs.tolist(), weights, strict=True):
        out[start:stop] = x[start:stop] @ weight
        start = stop
    return out if bias is None else out + bias


# By name in a graph, and by the function that code calls.
WRITTEN_OUT: dict[str, Callable[..., Tensor]] = {"aten::_grouped_mm": grouped_product}
CALLED = {
    function: grouped_product
    for function in (getattr(torch, "_grouped_mm", None), getattr(torch.nn.functional, "grouped_mm", None))
    if function is not None
}
