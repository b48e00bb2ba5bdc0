"""How long a network would take with some of its units gone, from measured layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ModelError
from compress.graph import Coupling, parameters
from compress.latency.layers import Layer, Sizes
from compress.latency.targets import timer_of
from compress.latency.timer import Timer, Whole

Alive = NDArray[np.bool_]


@dataclass(frozen=True)
class LatencyModel:
    """Predicts the latency of a network on a target.

    The whole network is measured once. Each layer is measured alone at the sizes that are asked for, once for each.
    What the whole takes beyond its layers is the rest: a part of it stays as it is (starting the run and every
    operation), the other shrinks with the share of elements that activations, norms, sums and pools still work on.

    Attributes:
        coupling: The analysed network.
        inputs: Examples of the batch that is timed.
        target: Where it is timed.
        threads: On how many threads of a CPU.
        timer: Measures on the target.
        sizes: The network's layers.
        whole: The whole network, measured.
        table: Seconds by layer and bytes of weights of the network around it, as far as they were asked for.
    """

    coupling: Coupling
    inputs: tuple[Tensor, ...]
    target: str
    threads: int
    timer: Timer
    sizes: Sizes
    whole: Whole
    table: dict[tuple[Layer, int], float] = field(default_factory=dict, repr=False)

    @property
    def dense(self) -> float:
        """Seconds of the whole network, measured."""
        return self.whole.seconds

    def predict(self, alive: Alive) -> float:
        """Seconds of the network that is left; ``alive`` says by label what stays.

        With everything alive that is ``dense``. Layers that were not met before are measured, which takes some
        hundredths of a second for each.
        """
        layers, rest = self._layers(alive), self.dense - self._dense_layers
        if rest <= 0:  # alone the layers took longer than inside the network
            return self.dense * layers / self._dense_layers
        stays = min(rest, self._overhead)
        share = self.sizes.elements(alive) / self._dense_elements
        return layers + stays + (rest - stays) * share

    @cached_property
    def _everything(self) -> Alive:
        return np.ones(self.coupling.flow.relations.count, dtype=bool)

    @cached_property
    def _dense_layers(self) -> float:
        """Seconds of the layers of the whole network."""
        return self._layers(self._everything)

    @cached_property
    def _dense_elements(self) -> int:
        return max(self.sizes.elements(self._everything), 1)

    @cached_property
    def _overhead(self) -> float:
        """Seconds to start the run and every node that is no layer."""
        others = max(self.whole.nodes - len(self.sizes.layers(self._everything)), 0)
        return self.whole.start + others * self.whole.node

    def seconds(self, value: float) -> float:
        """A budget in seconds: below 1 it is a fraction of ``dense``, else microseconds."""
        return value * self.dense if value < 1 else 1e-6 * value

    def _layers(self, alive: Alive) -> float:
        """Seconds of all layers. How large the network is around them counts in steps of two."""
        around = 1 << round(math.log2(4 * parameters(self.coupling, alive) + 1))
        return sum(self._layer(layer, around) for layer in self.sizes.layers(alive))

    def _layer(self, layer: Layer, around: int) -> float:
        key = (layer, around)
        if key not in self.table:
            self.table[key] = self.timer.layer(layer, around)
        return self.table[key]


def tables(
    coupling: Coupling, target: str = "onnxruntime-cpu", threads: int = 1, batch: int = 1, *, timer: Timer | None = None
) -> LatencyModel:
    """Measure a network as a whole and prepare the tables of its layers.

    Args:
        coupling: The analysed network.
        target: ``onnxruntime-cpu``, or ``cuda`` (PyTorch on the GPU).
        threads: Of ONNX Runtime.
        batch: Samples per call; a network that was traced for one batch size is timed with that.
        timer: Measures in place of the target.

    Raises:
        InputError: The target is unknown, has no latency, or is not there.
        ModelError: The network does not run on the target, or has no graph that holds for other data.
    """
    program = coupling.program
    timer = timer or timer_of(target, threads)
    if not program.replayable:
        raise ModelError("the path of the model depends on its data, so it has no one latency", "budget MACs instead")
    inputs = at_batch(program.inputs, batch) if program.dynamic_batch else tuple(program.inputs)
    sizes = Sizes(coupling, inputs)
    return LatencyModel(coupling, inputs, target, threads, timer, sizes, timer.network(program.module, inputs))


def at_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """Examples with another batch size: their first samples, over and over."""
    size = batch_of(inputs)
    rows = torch.arange(batch) % size
    return tuple(x[rows.to(x.device)] if x.dim() and x.shape[0] == size else x for x in inputs)


def batch_of(inputs: tuple[Tensor, ...]) -> int:
    """The first dim of the first input that has one."""
    return next((int(x.shape[0]) for x in inputs if x.dim()), 1)
