"""What may be done beside the training loop: for ways to train again, and for pruning on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from compress.recover.loop import Loop


class Hook:
    """Called by the loop; each method may read and change it, and does nothing unless overridden.

    A network that changes its size in between needs a loop of its own for each size.
    """

    def undecayed(self) -> Iterable[str]:
        """Names of parameters with two dims and more that do not decay; asked before the optimizer is made."""
        return ()

    def start(self, loop: Loop) -> None:
        """Before everything else that is called, also after a state was read; epoch 0 is judged after it."""

    def before_step(self, loop: Loop) -> None:
        """The learning rate of step ``loop.step`` is set; the batch has not been run."""

    def after_step(self, loop: Loop) -> None:
        """The optimizer has made the step; ``loop.step`` counts it."""

    def after_epoch(self, loop: Loop) -> None:
        """Before the epoch is judged on the validation samples."""

    def penalty(self, loop: Loop) -> Tensor | None:
        """What is added to the mean loss of a step, with its gradient; asked once for every part of a batch."""
        return None

    def ready(self, loop: Loop) -> bool:
        """Whether the network as it is now may be the result: an epoch for which this is not so is never the best."""
        return True

    def finished(self, loop: Loop) -> str:
        """Why the training may end after this epoch, which has been judged; "" goes on."""
        return ""

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        """What is to be told of an epoch beside its losses; epoch 0 is before the first step."""
        return {}

    def state(self) -> dict[str, Any]:
        """What an interrupted training has to keep: tensors, numbers and texts."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""


class KeepZeros(Hook):
    """Weights that are zero stay zero: what a method has masked does not grow back.

    Args:
        network: Weights of two dims and more are looked at. One that is zero throughout has no mask.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.masks: dict[str, Tensor] = {}
        for name, weight in network.named_parameters():
            kept = weight.detach() != 0
            if weight.dim() > 1 and weight.is_floating_point() and bool(kept.any()) and not bool(kept.all()):
                self.masks[name] = kept

    def after_step(self, loop: Loop) -> None:
        if not self.masks:
            return
        weights = dict(loop.network.named_parameters())
        with torch.no_grad():
            for name, kept in self.masks.items():
                self.masks[name] = kept = kept.to(weights[name].device)
                weights[name].mul_(kept)
