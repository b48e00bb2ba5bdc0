"""Times of layers and networks in PyTorch on a CUDA device, whose clock does the counting.

A layer is called many times in a row, so that it takes what the device computes or what starting it takes, whichever
is longer, as inside a network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.latency.layers import Layer
from compress.latency.timer import Whole, typical

_IN_A_ROW = 20
_CONVOLUTIONS: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("conv", 1): F.conv1d, ("conv", 2): F.conv2d, ("conv", 3): F.conv3d,
    ("conv_transpose", 1): F.conv_transpose1d, ("conv_transpose", 2): F.conv_transpose2d,
    ("conv_transpose", 3): F.conv_transpose3d,
}  # fmt: skip


class CudaTimer:
    """Times on one CUDA device.

    Args:
        device: Such as ``cuda`` or ``cuda:1``.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def layer(self, layer: Layer, weight_bytes: int) -> float:
        """Seconds of one layer; how large the network is makes no difference."""
        return self._seconds(call_of(layer, self.device), _IN_A_ROW)

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        """Seconds of a network, and of an operation that has nothing to do but to be started."""
        moved = copy.deepcopy(module).to(self.device)
        examples = [each.to(self.device) for each in inputs]
        seconds = self._seconds(lambda: moved(*examples), 1)
        one = torch.ones(1, device=self.device)
        node = self._seconds(lambda: torch.sin(one), 10 * _IN_A_ROW)
        graph = getattr(module, "graph", torch.fx.Graph())
        return Whole(seconds, sum(n.op == "call_function" for n in graph.nodes), 0.0, node)

    def _seconds(self, call: Callable[[], object], in_a_row: int) -> float:
        times = []
        with torch.inference_mode():
            for _ in range(12):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize(self.device)
                start.record()
                for _ in range(in_a_row):
                    call()
                end.record()
                torch.cuda.synchronize(self.device)
                times.append(1e-3 * start.elapsed_time(end) / in_a_row)
        return typical(times[2:], 0.0)


def call_of(layer: Layer, device: torch.device) -> Callable[[], object]:
    """A layer with random weights on random data, as a function that computes it once."""
    drawn = [torch.randn(shape, device=device) for shape in layer.shapes]
    if layer.op in ("conv", "conv_transpose"):
        return _convolution(layer, *drawn)
    if layer.op == "linear":
        return lambda: F.linear(*drawn)
    if layer.op == "matmul":
        return lambda: torch.matmul(*drawn)
    if layer.op == "einsum":
        return lambda: torch.einsum(layer["equation"], *drawn)
    if layer.op == "attention":
        query, key, value = drawn
        return lambda: F.scaled_dot_product_attention(query, key, value)
    return _recurrent(layer, device)


def _convolution(layer: Layer, x: Tensor, weight: Tensor) -> Callable[[], object]:
    spatial = weight.dim() - 2
    begin, end = layer["pads"][:spatial], layer["pads"][spatial:]
    if begin != end:  # an even kernel with padding="same"
        x, begin = F.pad(x, [n for pair in reversed(list(zip(begin, end, strict=True))) for n in pair]), (0,) * spatial
    options = {"stride": layer["strides"], "padding": begin, "dilation": layer["dilations"], "groups": layer["groups"]}
    if layer.op == "conv_transpose":
        options["output_padding"] = layer["output_padding"]
    function = _CONVOLUTIONS[layer.op, spatial]
    return lambda: function(x, weight, **options)


def _recurrent(layer: Layer, device: torch.device) -> Callable[[], object]:
    (time, samples, features), (directions, units) = layer.shapes
    kinds: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
    options: dict[str, Any] = {"bidirectional": directions == 2}
    if layer.op.startswith("rnn_"):
        options["nonlinearity"] = layer.op.removeprefix("rnn_")
    made: nn.Module = kinds[layer.op](features, units, **options).to(device)  # type: ignore[arg-type]
    x = torch.randn(time, samples, features, device=device)
    return lambda: made(x)
