"""What a latency model asks of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from compress.latency.layers import Layer


@dataclass(frozen=True)
class Whole:
    """A network's time.

    Attributes:
        seconds: Of one call.
        overhead: Of them, those that stay however small its tensors get: starting the call and each operation.
    """

    seconds: float
    overhead: float


class Timer(Protocol):
    """Measures on the target."""

    def layer(self, layer: Layer) -> float:
        """Seconds that one layer takes inside a network."""
        ...

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        """Seconds of a whole network."""
        ...
