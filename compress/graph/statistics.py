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


def _left(named: dict[str, Any], masks: dict[str, Any], instead: float) -> Tensor:
    """The tensor with another number in place of what is removed."""
    x, mask = named["self"], masks["self"]
    return x if mask is None else torch.where(mask, x, torch.full((), instead, dtype=x.dtype))


def largest(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    return _left(named, masks, -torch.inf).amax(_dims(named["self"], named.get("dim")), bool(named.get("keepdim")))


def smallest(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    return _left(named, masks, torch.inf).amin(_dims(named["self"], named.get("dim")), bool(named.get("keepdim")))


def maximum(named: dict[str, Any], masks: dict[str, Any]) -> Any:
    """``torch.max`` in its three forms; where positions are read, nothing along the dim is removed."""
    if "other" in named:
        return torch.maximum(named["self"], named["other"])
    x = _left(named, masks, -torch.inf)
    return tuple(x.max(named["dim"], bool(named.get("keepdim")))) if "dim" in named else x.max()


def minimum(named: dict[str, Any], masks: dict[str, Any]) -> Any:
    if "other" in named:
        return torch.minimum(named["self"], named["other"])
    x = _left(named, masks, torch.inf)
    return tuple(x.min(named["dim"], bool(named.get("keepdim")))) if "dim" in named else x.min()


def distance(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    """``|a - b + eps|`` over the last dim: what is removed adds no eps."""
    difference = named["x1"] - named["x2"] + named.get("eps", 1e-6)
    for mask in (masks["x1"], masks["x2"]):
        difference = difference if mask is None else torch.where(mask, difference, 0.0)
    return torch.linalg.vector_norm(difference, named.get("p", 2.0), -1, bool(named.get("keepdim")))


SPREADS = {
    "aten::var": variance,
    "aten::std": deviation,
    "aten::var_mean": variance_and_mean,
    "aten::std_mean": deviation_and_mean,
    "aten::pairwise_distance": distance,
    "aten::max": maximum,
    "aten::min": minimum,
    "aten::amax": largest,
    "aten::amin": smallest,
}
