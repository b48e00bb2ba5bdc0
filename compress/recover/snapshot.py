"""What a training has to keep to go on where it was cut off, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.recover.weights import Best, put, taken

if TYPE_CHECKING:
    from compress.recover.loop import Loop


def snapshot(loop: Loop, loss: float) -> dict[str, Any]:
    """Tensors, numbers, texts and containers of them.

    Args:
        loop: Between two steps.
        loss: The sum of the losses of the steps of this epoch, over all processes.
    """
    scaler, best = loop.accelerator.scaler, loop.best
    return {
        "step": loop.step,
        "loss": loss,
        "stopped": loop.stopped,
        "history": loop.history,
        "tensors": taken(loop.network),
        "changes": loop.changes,
        "optimizer": loop.optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "best": None if best is None else [best.epoch, list(best.score), dict(best.tensors)],
        "hooks": [hook.state() for hook in loop.hooks],
    }


def restore(loop: Loop, content: Mapping[str, Any]) -> None:
    """The inverse of `snapshot`, on a loop that has made no step."""
    loop.step, loop.history, loop.stopped = content["step"], list(content["history"]), content["stopped"]
    loop.loss.fill_(content["loss"] if loop.rank == 0 else 0.0)
    put(loop.network, content["tensors"])
    if content["changes"]:
        loop.change_optimizer(**content["changes"])
    loop.optimizer.load_state_dict(content["optimizer"])
    if loop.accelerator.scaler is not None and content["scaler"] is not None:
        loop.accelerator.scaler.load_state_dict(content["scaler"])
    if content["best"] is not None:
        epoch, (accuracy, loss), tensors = content["best"]
        loop.best = Best(epoch, (accuracy, loss), tensors)
    for hook, state in zip(loop.hooks, content["hooks"], strict=True):
        hook.load(state)
