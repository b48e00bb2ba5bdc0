"""What has to be said of a result that tells classes apart no better than a guess, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, fx

from compress.evaluate import Accuracy
from compress.graph.double import leaves
from compress.recover import Trained

_SAME = 1e-6  # relative, in float32
_LITTLE = 0.05  # of the parameters that were not zero: where so few are left, they are the reason


class Measured(Protocol):
    """One of the two networks."""

    @property
    def nonzero(self) -> int | None: ...

    @property
    def accuracy(self) -> Accuracy | None: ...


def doubts(before: Measured, after: Measured, trained: Trained | None) -> tuple[str, ...]:
    """What speaks against the result, and what to do next; empty where nothing does.

    Args:
        before: The network that came in. Where that is no better than a guess either, a result is not blamed for it,
            but a training is.
        after: The result.
        trained: The training, if there was one.
    """
    found = []
    if trained is not None and trained.best == 0 and not trained.diverged:
        found.append(
            f"no epoch of the training was better than the network it began with, whose weights are kept: "
            f"{_more(trained)}"
        )
    was, now = before.accuracy, after.accuracy
    if now is None or not now.at_chance or (trained is None and (was is None or was.at_chance)):
        return tuple(found)
    text = (
        f"the result is no better than a guess: it puts {100 * now.accuracy:.2f} % of {now.count:,} test samples into "
        f"the right class, and {100 * now.chance:.2f} % are of the same one"
    )
    return (*found, f"{text}. {_remedy(before.nonzero, after.nonzero, trained)}")


def unvarying(original: fx.GraphModule, result: fx.GraphModule, inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """What has to be said of a result that puts out the same for every input, where the original does not.

    Args:
        original, result: Both networks.
        inputs: Example inputs, the samples of a batch different from each other; of one sample nothing can be said.
    """
    if int(inputs[0].shape[0]) < 2 or _spread(result, inputs) > _SAME or _spread(original, inputs) <= _SAME:
        return ()
    return ("the result puts out the same whatever its input is, as nothing reads that any more. Take less away",)


def _spread(module: fx.GraphModule, inputs: Sequence[Tensor]) -> float:
    """By how much the outputs of the samples of a batch differ at most, relative to the largest."""
    with torch.no_grad():
        outputs = [y.double() for y in leaves(module(*(x.clone() for x in inputs))) if y.dim() and len(y) > 1]
    found = [float((y - y[:1]).abs().max() / y.abs().max().clamp(min=1e-30)) for y in outputs if y.numel()]
    return max(found, default=1.0)


def _remedy(before: int | None, after: int | None, trained: Trained | None) -> str:
    if before and after is not None and after < _LITTLE * before:
        less = "take less away, by the budget or --keep, or by a smaller --lam where the method has one"
        return f"{after:,} of {before:,} parameters are left that are not zero: {less}"
    if trained is None:
        return "Take less away, or train what is left: `compress finetune`, or --data and --epochs"
    return f"Try {_more(trained)}"


def _more(trained: Trained) -> str:
    """What a training that came to nothing may lack."""
    losses = [entry["validation loss"] for entry in trained.history]
    return "a lower --lr" if len(losses) > 1 and losses[-1] > losses[0] else "more --epochs, or another --lr"
