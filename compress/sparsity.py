"""From scores of single weights and a budget to masks of those that stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx
from torch.nn import functional

from compress.budget import Budget
from compress.errors import ModelError


def fraction(budget: Budget, module: fx.GraphModule, weights: Mapping[str, Tensor]) -> float:
    """The share of ``weights`` that is to be zero.

    Args:
        budget: A ratio says it; of parameters, those that are not zero count.
        module: The network.
        weights: The weights that may become zero, by name.

    Raises:
        ModelError: The budget cannot be met by zeros.
    """
    if budget.kind == "ratio":
        return budget.value
    if budget.kind != "params":
        raise ModelError(
            f"zeros change nothing about --{budget.kind}: the tensors keep their sizes",
            "give --ratio or --params, or remove whole units",
        )
    unique = {id(p): p for p in module.parameters()}
    total = sum(p.numel() for p in unique.values())
    candidates = sum(w.numel() for w in weights.values())
    limit = budget.value * total if budget.value < 1 else budget.value
    if limit <= total - candidates:
        raise ModelError(
            f"--params {limit:,.0f} cannot be met: {total - candidates:,} of {total:,} parameters are never zeroed",
            "choose a larger budget, or allow more layers to be pruned",
        )
    return max(0.0, (total - limit) / candidates)


def two_of_four(weight: Tensor, output_dim: int = 0) -> bool:
    """Whether of every four consecutive weights of one output at most two are not zero: what sparse kernels need.

    Args:
        weight: A layer's weight, or a mask of one.
        output_dim: The dim of its outputs; the others, in memory's order, are the fan-in. Its last weights may be
            fewer than four. A weight without zeros is none.
    """
    rows = (weight.movedim(output_dim, 0).reshape(weight.shape[output_dim], -1) != 0).long()
    padded = functional.pad(rows, (0, -rows.shape[1] % 4))
    return not bool(rows.all()) and bool((padded.unflatten(1, (-1, 4)).sum(2) <= 2).all())


def weakest(
    scores: Mapping[str, Tensor], weights: Mapping[str, Tensor], share: float, together: bool
) -> dict[str, Tensor]:
    """Masks, True for what stays, under which a share of the weights is zero; weights that are zero count first.

    Args:
        scores: By name a tensor of the weight's shape, higher means keep.
        weights: The weights themselves.
        share: Of the weights of each layer, or of all layers together.
        together: Whether the scores of all layers compete with each other.

    Each layer keeps at least one weight. Of equal scores, the first in memory goes.
    """
    # Zeros first, whatever a method thinks of them: the share is that of zeros in the result.
    flat = {n: torch.where(weights[n] == 0, -torch.inf, s.double()).flatten() for n, s in scores.items()}
    if not together:
        return {n: _kept(values, share).reshape(weights[n].shape) for n, values in flat.items()}
    best = {n: int(values.argmax()) for n, values in flat.items()}
    for name, values in flat.items():
        values[best[name]] = torch.inf
    mask = _kept(torch.cat(list(flat.values())), share)
    parts = mask.split([len(values) for values in flat.values()])
    return {n: part.reshape(weights[n].shape) for n, part in zip(flat, parts, strict=True)}


def _kept(values: Tensor, share: float) -> Tensor:
    count = min(len(values) - 1, int(share * len(values) + 0.5))
    if count <= 0:
        return torch.ones(len(values), dtype=torch.bool)
    largest = values.kthvalue(count).values  # of those that go
    mask = values > largest
    equal = (values == largest).nonzero().flatten()
    mask[equal[count - int((values < largest).sum()) :]] = True
    return mask
