"""Gradients of the loss on labelled calibration data."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx
from torch.func import functional_call
from torch.nn import functional

from compress.errors import ModelError

BATCH = 32


def gradients(
    module: fx.GraphModule, inputs: Tensor, targets: Tensor, batch: int = BATCH
) -> Iterator[dict[str, Tensor]]:
    """For each batch the gradient of the mean cross-entropy with respect to every floating-point parameter.

    Args:
        module: Gives class scores (N, classes), or (N, classes, ...) with one class for each position.
        inputs: Samples, first dim the sample.
        targets: Class numbers (N,).
        batch: Samples at once.

    Yields:
        By parameter name a tensor of its shape; zero where the scores do not depend on it.

    Raises:
        ModelError: It gives no scores of as many classes.
    """
    classes = max(2, int(targets.max()) + 1)
    present = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters() if p.is_floating_point()}
    for x, y in zip(inputs.split(batch), targets.split(batch), strict=True):
        with torch.enable_grad():
            scores = functional_call(module, present, (x.clone(),))
            loss = functional.cross_entropy(_scores(scores, len(x), classes), y)
            found = torch.autograd.grad(loss, list(present.values()), allow_unused=True)
        yield {
            name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(present.items(), found, strict=True)
        }


def _scores(found: object, count: int, classes: int) -> Tensor:
    """The class scores among what a network gives: the first tensor with two dims, one row for each sample."""
    if isinstance(found, dict):
        found = list(found.values())
    for each in found if isinstance(found, (tuple, list)) else [found]:
        if isinstance(each, Tensor) and each.dim() == 2 and len(each) == count and each.shape[1] >= classes:
            return each
    raise ModelError(
        f"the model gives no class scores (samples, classes) of {classes} classes, so there is no loss to "
        "differentiate",
        "choose a method that needs no labels, such as reconstruct or dependency",
    )
