"""What a latency model asks of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from compress.latency.layers import Layer


@dataclass(frozen=True)
class Whole:
    """A network's time.

    Attributes:
        seconds: Of one call.
        nodes: How many kernels one call starts.
        start: Seconds of a call that does nothing.
        node: Seconds of a kernel that does nothing.
    """

    seconds: float
    nodes: int
    start: float
    node: float


class Timer(Protocol):
    """Measures on the target."""

    def layer(self, layer: Layer, weight_bytes: int) -> float:
        """Seconds that one layer takes inside a network with so many bytes of weights."""
        ...

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        """Seconds of a whole network."""
        ...


def typical(times: Sequence[float], resolution: float = 1e-6) -> float:
    """The mean of the times that nothing disturbed: up to a fifth above their lower quartile.

    On a machine with other work, the median of short runs says more of that work than of the run.
    """
    values = np.asarray(times)
    return float(values[values <= 1.2 * np.quantile(values, 0.25) + resolution].mean())
