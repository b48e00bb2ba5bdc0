"""Times of layers and networks in ONNX Runtime on the CPU.

A layer is timed alone, as a model of one node, by the runtime's profiler. Three things make that agree with what the
layer takes inside a network. The nodes that change the memory layout before and after a convolution do not count, as
neighbouring convolutions share the layout. What the profiler adds to every node is measured on a node that does
nothing and taken off. And between two runs as many bytes are read as the network has weights, since inside the network
the weights of a layer have left the caches when its turn comes again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.latency.layers import Layer
from compress.latency.sessions import exported, kernels, open_session
from compress.latency.single import IDLE, serialised, single
from compress.latency.timer import Whole, typical

_LAYOUT = {"ReorderInput", "ReorderOutput"}
_COLDEST = 32 << 20  # bytes; few caches are larger
_RUNS, _SECONDS = 6, 0.01  # of a layer, at least


class OnnxRuntimeTimer:
    """Times on the CPU in ONNX Runtime.

    Args:
        threads: Of a run.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = np.ones(_COLDEST // 4, np.float32)

    def layer(self, layer: Layer, weight_bytes: int) -> float:
        """Seconds that one layer takes inside a network with so many bytes of weights."""
        others = self._others[: weight_bytes // 4]
        found = kernels(single(layer), self.threads, runs=_RUNS, seconds=_SECONDS, between=others.sum)
        idle = typical([t for op, times in found if op == IDLE for t in times])
        return sum(max(typical(times) - idle, 0.0) for op, times in found if op != IDLE and op not in _LAYOUT)

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        """Seconds of a network, and of its parts that have nothing to do.

        Raises:
            ModelError: The network cannot be expressed in ONNX.
        """
        with exported(module, inputs) as made:
            seconds, nodes = self._seconds(made.runner(self.threads)), made.nodes()
        return Whole(seconds, nodes, *self._idle)

    @cached_property
    def _idle(self) -> tuple[float, float]:
        """Seconds of a run and of a node of it that do nothing, from chains of 1 and 65 sums of eight numbers."""
        one, many = (self._seconds(_chain(length, self.threads)) for length in (1, 65))
        node = max(many - one, 0.0) / 64
        return max(one - node, 0.0), node

    def _seconds(self, run: Callable[[], object]) -> float:
        """Of one run. On one thread that is processor time, in which other programs do not count."""
        clock = time.thread_time if self.threads == 1 else time.perf_counter
        times: list[float] = []
        for _ in range(3):
            run()
        start = time.perf_counter()
        while len(times) < 10 or (time.perf_counter() - start < 0.5 and len(times) < 500):
            begin = clock()
            run()
            times.append(clock() - begin)
        return typical(times, 0.0)


def _chain(length: int, threads: int) -> Callable[[], object]:
    nodes = [helper.make_node("Add", [f"x{i}", "bias"], [f"x{i + 1}"]) for i in range(length)]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1, 2, 2, 2)) for i in (0, length)]
    bias = numpy_helper.from_array(np.ones((1, 2, 1, 1), np.float32), "bias")
    session = open_session(serialised(nodes, ends[:1], ends[1:], [bias]), threads)
    feed = {"x0": np.ones((1, 2, 2, 2), np.float32)}
    return lambda: session.run(None, feed)
