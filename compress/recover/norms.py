"""Statistics of batch norms estimated again, where the layer before could not be refitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.calibration.layers import Layers


def restated(
    node: fx.Node,
    layers: Layers,
    inputs: Sequence[Tensor],
    dense: Sequence[Tensor],
    judges: int,
    original: Sequence[Tensor],
) -> float | None:
    """Mean and variance that normalise the sliced network's values as the dense network's were.

    Args:
        node: The batch norm; its buffers are written in place where that helps.
        layers: Of the sliced graph.
        inputs, dense: For each batch what goes into it, (N, C, ...), and what did in the dense network.
        judges: How many batches, the last, only judge; without any nothing is changed.
        original: Mean and variance that the dense network has for these channels. Those of the sliced one may differ,
            as they take over the constants of units that were dead.

    Returns:
        The held-out error after over that before, None where nothing was changed.
    """
    arguments: tuple[Any, ...] = node.args
    if not judges or layers.uses[id(layers.tensor(arguments[4]))] > 1:
        return None
    mean, variance = (layers.tensor_named(str(a.target)) for a in arguments[3:5])
    old_mean, old_variance = original
    eps = float(arguments[7])
    fit = len(inputs) - judges
    (here, spread), (there, wide) = _statistics(inputs[:fit]), _statistics(dense[:fit])
    ratio = torch.where(wide > 0, spread / wide.clamp(min=1e-30), 1.0)
    new_mean = here + (old_mean - there) * ratio.sqrt()
    new_variance = old_variance * ratio
    before = after = 0.0
    for x, y in zip(inputs[fit:], dense[fit:], strict=True):
        wanted = _normal(y, old_mean, old_variance, eps)
        before += float((_normal(x, mean, variance, eps) - wanted).square().sum())
        after += float((_normal(x, new_mean, new_variance, eps) - wanted).square().sum())
    if not after < before:
        return None
    mean.copy_(new_mean)
    variance.copy_(new_variance)
    return after / before


def _statistics(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance by channel."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for x in batches:
        flat = x.transpose(0, 1).flatten(1).double()
        count += flat.shape[1]
        total, squares = total + flat.sum(1), squares + flat.square().sum(1)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0)


def _normal(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return (x.double() - mean.reshape(shape)) / (variance.double() + eps).sqrt().reshape(shape)
