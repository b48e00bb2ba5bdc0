"""Statistics over what is kept, as the oracle computes them: removed elements are left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.graph.rules.reduction import spread_correction


def _dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(x.dim()))
    return sorted(d % x.dim() for d in ([dim] if isinstance(dim, int) else dim))


def _finish(x: Tensor, dims: list[int], keepdim: bool) -> Tensor:
    """Drop the reduced dims, which have size 1."""
    return x if keepdim else x.reshape([n for d, n in enumerate(x.shape) if d not in dims])


def _spread(named: dict[str, Any], masks: dict[str, Any]) -> tuple[Tensor, Tensor]:
    x, mask = named["self"], masks["self"]
    dims, keepdim = _dims(x, named.get("dim")), bool(named.get("keepdim"))
    kept = torch.ones((), dtype=torch.bool) if mask is None else mask
    ones = kept.to(x.dtype).expand(x.shape)
    count = ones.sum(dims, keepdim=True)
    mean = torch.where(kept, x, 0.0).sum(dims, keepdim=True) / count.clamp(min=1)
    total = torch.where(kept, x - mean, 0.0).square().sum(dims, keepdim=True)
    variance = total / (count - spread_correction(named))
    return _finish(variance, dims, keepdim), _finish(mean, dims, keepdim)


def variance(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    return _spread(named, masks)[0]


def deviation(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    return variance(named, masks).sqrt()


def variance_and_mean(named: dict[str, Any], masks: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return _spread(named, masks)


def deviation_and_mean(named: dict[str, Any], masks: dict[str, Any]) -> tuple[Tensor, Tensor]:
    found, mean = _spread(named, masks)
    return found.sqrt(), mean


def largest(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    x, mask = named["self"], masks["self"]
    lowest = x if mask is None else torch.where(mask, x, torch.full((), -torch.inf, dtype=x.dtype))
    return lowest.amax(_dims(x, named.get("dim")), bool(named.get("keepdim")))


def smallest(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    return -largest({**named, "self": -named["self"]}, masks)


SPREADS = {
    "aten::var": variance,
    "aten::std": deviation,
    "aten::var_mean": variance_and_mean,
    "aten::std_mean": deviation_and_mean,
    "aten::amax": largest,
    "aten::amin": smallest,
}
