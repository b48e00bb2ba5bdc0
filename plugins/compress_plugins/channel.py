"""Channel pruning: of every few consecutive weights of a neuron, the largest stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from compress.plugin import Context, ModelError, Plan, option


@dataclass(frozen=True)
class Channel:
    """Keeps the largest of every N consecutive weights of a neuron's fan-in"""

    source: ClassVar[str] = (
        "Resnick, Activation, Dropout, Pruning, University of Colorado Boulder 2020, section on channel pruning"
    )

    pool_size: int = option(2, "consecutive weights of which one stays; 2 gives a 2:4 pattern")
    first_layer: bool = option(False, "prune layers that read the model's input as well; the paper leaves them whole")

    def __post_init__(self) -> None:
        if self.pool_size < 2:
            raise ValueError(f"pool_size: must be at least 2, got {self.pool_size}")

    def plan(self, context: Context) -> Plan:
        """Masks of all layers that may shrink but the first; biases stay.

        Raises:
            ModelError: Nothing but the first layer may be pruned.
        """
        left = frozenset() if self.first_layer else context.first_layers
        masks: dict[str, Tensor] = {}
        notes: dict[str, dict[str, Any]] = {}
        for name, weight in context.layers().items():
            if name in left:
                notes[name] = {"whole": "it reads the model's input; --first-layer prunes it too"}
                continue
            masks[name], notes[name] = self.mask(weight, context.output_dim(name))
        if not masks:
            raise ModelError("only the first layer could be pruned, which the method leaves whole", "say --first-layer")
        return context.plan_from_masks(masks, notes)

    def mask(self, weight: Tensor, output_dim: int = 0) -> tuple[Tensor, dict[str, Any]]:
        """Which weights of one layer stay, and what was done.

        Args:
            weight: (out, in, *kernel), or with its outputs along another dim.
            output_dim: That dim. Each of its indices is a neuron, whose fan-in is cut into pools in memory's order.

        The last pool of a neuron is shorter where the fan-in is no multiple of the pool's size. Of equal weights the
        first stays.
        """
        moved = weight.detach().movedim(output_dim, 0)
        rows = moved.flatten(1) if weight.dim() > 1 else moved[:, None]
        mask = _largest(rows, self.pool_size)
        note: dict[str, Any] = {
            "fan_in": rows.shape[1],
            "weights": int((rows != 0).sum()),
            "kept_weights": int((mask & (rows != 0)).sum()),
        }
        return mask.reshape(moved.shape).movedim(0, output_dim), note


def _largest(rows: Tensor, size: int) -> Tensor:
    """(neurons, fan-in), True for the largest magnitude of every pool."""
    count = rows.shape[1]
    padded = functional.pad(rows.abs().double(), (0, -count % size), value=-1.0)  # never the largest
    pools = padded.unflatten(1, (-1, size))
    mask = torch.zeros(pools.shape, dtype=torch.bool).scatter_(2, pools.argmax(2, keepdim=True), True)
    return mask.flatten(1)[:, :count]
