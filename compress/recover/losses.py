"""What a training makes small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.training import Loss


def summed_loss(scores: Tensor, targets: Tensor, kind: Loss, smoothing: float = 0.0) -> Tensor:
    """The loss of some samples, summed over them.

    Args:
        scores: (N, classes).
        targets: (N,), numbers of classes.
        kind: ``cross-entropy`` of the softmax; ``bce`` - each class a yes or no of its own, the mean over the
            classes of the binary cross-entropy of the logistic function of its score.
        smoothing: Share of the target that all classes have in common.
    """
    if kind == "cross-entropy":
        return functional.cross_entropy(scores, targets, reduction="sum", label_smoothing=smoothing)
    classes = scores.shape[1]
    wanted = functional.one_hot(targets, classes).to(scores.dtype) * (1 - smoothing) + smoothing / classes
    return functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / classes


def gradients(loss: Tensor, module: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that a loss depends on, each with its gradient; what it was computed from can be used again."""
    if not loss.requires_grad:
        return []
    parameters = [each for each in module.parameters() if each.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [(each, slope) for each, slope in zip(parameters, found, strict=True) if slope is not None]
