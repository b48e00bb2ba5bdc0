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
from onnx import TensorProto, helper
from torch import Tensor, nn

from compress.latency.layers import Layer
from compress.latency.sessions import exported, kernels, open_session, typical
from compress.latency.single import IDLE, OPSET, single
from compress.latency.timer import Whole

_LAYOUT = {"ReorderInput", "ReorderOutput"}
_COLDEST = 64 << 20  # bytes; larger than the caches of a core
_RUNS, _SECONDS = 6, 0.01  # of a layer, at least


class OnnxRuntimeTimer:
    """Times on the CPU in ONNX Runtime.

    Args:
        threads: Of a run.
        weight_bytes: Of the network whose layers are timed.
    """

    def __init__(self, threads: int, weight_bytes: int) -> None:
        self.threads = threads
        self._other = np.ones(min(weight_bytes, _COLDEST) // 4, np.float32)

    def layer(self, layer: Layer) -> float:
        """Seconds of one layer."""
        found = kernels(
            single(layer).SerializeToString(), self.threads, runs=_RUNS, seconds=_SECONDS, between=self._other.sum
        )
        idle = typical([t for op, times in found if op == IDLE for t in times])
        return sum(max(typical(times) - idle, 0.0) for op, times in found if op != IDLE and op not in _LAYOUT)

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        """Seconds of a network, and what its nodes would take if they had nothing to do.

        Raises:
            ModelError: The network cannot be expressed in ONNX.
        """
        with exported(module, inputs) as made:
            seconds, nodes = self._seconds(made.runner(self.threads)), made.nodes()
        start, each = self._overhead
        return Whole(seconds, start + nodes * each)

    @cached_property
    def _overhead(self) -> tuple[float, float]:
        """Seconds of a run and of a node of it that do nothing: from chains of 1 and 65 sines of one number."""
        one, many = (self._seconds(_chain(length, self.threads)) for length in (1, 65))
        each = max(many - one, 0.0) / 64
        return max(one - each, 0.0), each

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
    nodes = [helper.make_node(IDLE, [f"x{i}"], [f"x{i + 1}"]) for i in range(length)]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1,)) for i in (0, length)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    session = open_session(model.SerializeToString(), threads)
    feed = {"x0": np.ones(1, np.float32)}
    return lambda: session.run(None, feed)
