"""The size and cost of a model: parameters, multiply-adds, bytes, and how long a call takes.

One MAC is one multiplication with its addition, as in a convolution, a linear layer or attention.
Activations, normalisation, pooling and element-wise arithmetic count nothing, as is usual.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from compress.errors import InputError, ModelError

aten = torch.ops.aten


@dataclass(frozen=True)
class MacCount:
    """Multiply-adds for one sample: in all, and by module (or by node, where no weight is involved)."""

    total: int
    by_module: dict[str, int]


@dataclass(frozen=True)
class Latency:
    """Seconds per call on `batch` samples: median and 90th percentile of `runs` calls, `threads` threads."""

    p50: float
    p90: float
    runs: int
    batch: int
    threads: int
    runtime: str = "torch"  # what computed: "torch" or "onnxruntime"


@dataclass(frozen=True)
class LatencyPair:
    """Two models timed side by side.

    Attributes:
        before: Of the first.
        after: Of the second.
        speedup: ``before.p50 / after.p50``; above 1 when the second is faster.
        speedup_of_pairs: The median of the ratios of calls made right after each other, which drifting
            clock rates disturb less.
    """

    before: Latency
    after: Latency
    speedup: float
    speedup_of_pairs: float


def count_parameters(module: nn.Module) -> int:
    """The number of parameters; tied ones count once."""
    return sum(each.numel() for each in module.parameters())


def count_nonzero(module: nn.Module) -> int:
    """The number of floating-point parameters that are not zero; tied ones count once."""
    floats = (each for each in module.parameters() if each.is_floating_point() or each.is_complex())
    return sum(int(torch.count_nonzero(each.detach())) for each in floats)


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, each distinct tensor once."""
    distinct = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in distinct.values())


def count_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> MacCount:
    """The multiply-adds of one forward pass, for one sample; shapes only, nothing is computed.

    The counts are half of those of ``torch.utils.flop_counter``, whose gaps (LSTM, matrix times vector, dot
    product, bilinear layers, attention on a CPU) are filled.

    Args:
        module: Any module. For an ``fx.GraphModule`` each count goes to the module that owns the weight.
        inputs: A batch of any size; it is divided out.

    Raises:
        ModelError: The module cannot run on shapes alone.
    """
    if not inputs or not inputs[0].dim() or not inputs[0].shape[0]:
        raise InputError("counting multiply-adds needs a batch of at least one sample")
    training = {each: each.training for each in module.modules()}
    for each in training:
        each.training = False  # not eval(), which exported programs refuse
    try:
        with _shapes_only() as mode, FlopCounterMode(display=False, custom_mapping=_GAPS) as counter:
            fakes = [mode.from_tensor(each.detach()) for each in inputs]
            if isinstance(module, fx.GraphModule):
                counts = _Attributed(module, counter).counts_of(*fakes)
            else:
                module(*fakes)
                counts = _by_module(counter)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"multiply-adds cannot be counted: {reason}", "check the input shape") from error
    finally:
        for each, mode_before in training.items():
            each.training = mode_before
    batch = inputs[0].shape[0]
    by_module = {name: round(flops / 2 / batch) for name, flops in counts.items() if flops}
    return MacCount(round(counter.get_total_flops() / 2 / batch), by_module)


def latency(
    functions: Mapping[str, Callable[[], object]],
    *,
    min_runs: int = 20,
    min_seconds: float = 1.0,
    warmup: int = 3,
    threads: int = 1,
    batch: int = 1,
) -> dict[str, Latency]:
    """Time functions in turns (A B A B ...), so that whatever else the machine does hits all of them alike.

    Args:
        functions: What to call, by name. On an accelerator a function has to wait for its own result.
        min_runs: Calls of each, at least.
        min_seconds: Go on until all calls together took that long.
        warmup: Calls of each that are not timed.
        threads: Of torch, while timing; what was set before is set again.
        batch: Samples per call, for the record.
    """
    times = _times(functions, min_runs, min_seconds, warmup, threads)
    return {name: _summary(each, batch, threads) for name, each in times.items()}


def latency_pair(
    before: Callable[..., object],
    after: Callable[..., object],
    inputs: tuple[Tensor, ...],
    *,
    min_runs: int = 20,
    min_seconds: float = 1.0,
    warmup: int = 3,
    threads: int = 1,
) -> LatencyPair:
    """Two models on the same inputs, timed in turns without gradients; see `latency`.

    Modules should be in eval mode and, like the inputs, on the device to be measured.
    """

    def call(model: Callable[..., object]) -> Callable[[], object]:
        def once() -> None:
            model(*inputs)
            if inputs and inputs[0].is_cuda:
                torch.cuda.synchronize(inputs[0].device)

        return once

    pair = {"before": call(before), "after": call(after)}
    with torch.inference_mode():
        times = _times(pair, min_runs, min_seconds, warmup, threads)
    batch = inputs[0].shape[0] if inputs else 1
    first, second = (_summary(times[name], batch, threads) for name in ("before", "after"))
    ratios = [a / b for a, b in zip(times["before"], times["after"], strict=True)]
    return LatencyPair(first, second, first.p50 / second.p50, median(ratios))


def _times(
    functions: Mapping[str, Callable[[], object]],
    min_runs: int,
    min_seconds: float,
    warmup: int,
    threads: int,
) -> dict[str, list[float]]:
    if not functions or min_runs < 1 or threads < 1:
        raise InputError("timing needs a function, at least one run and at least one thread")
    times: dict[str, list[float]] = {name: [] for name in functions}
    with _steady(threads):
        for _ in range(warmup):
            for function in functions.values():
                function()
        spent, runs = 0.0, 0
        while runs < min_runs or spent < min_seconds:
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                times[name].append(max(time.perf_counter() - start, 1e-9))
                spent += times[name][-1]
            runs += 1
    return times


def _summary(times: list[float], batch: int, threads: int) -> Latency:
    p90 = quantiles(times, n=10, method="inclusive")[-1] if len(times) > 1 else times[0]
    return Latency(median(times), p90, len(times), batch, threads)


@contextmanager
def _steady(threads: int) -> Iterator[None]:
    """A fixed number of threads and no garbage collection; both as before afterwards."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()


class _Attributed(fx.Interpreter):
    """Runs a graph and keeps, for each node, how far the counter went on."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.counts: dict[str, int] = defaultdict(int)

    def counts_of(self, *inputs: Any) -> dict[str, int]:
        self.run(*inputs, enable_io_processing=False)
        return dict(self.counts)

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        if added := self.counter.get_total_flops() - before:
            self.counts[_owner(n)] += added
        return result


def _owner(node: fx.Node) -> str:
    """The module whose parameter a node uses ("layer1.0.conv1" for its weight), else the node's own name."""
    for each in node.all_input_nodes:
        if each.op == "get_attr":
            return str(each.target).rpartition(".")[0] or str(each.target)
    return node.name


def _by_module(counter: FlopCounterMode) -> dict[str, int]:
    """What each module itself does, without the modules inside it; names without the outermost class."""
    inclusive = {
        name: sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name != "Global"
    }
    own = dict(inclusive)
    for name, flops in inclusive.items():
        parent = name.rpartition(".")[0]
        if parent in own:
            own[parent] -= flops
    return {name.partition(".")[2] or name: flops for name, flops in own.items()}


@contextmanager
def _shapes_only() -> Iterator[FakeTensorMode]:
    """Tensors without values; fused CPU paths that a counter cannot see into are off."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), mode:
                yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _mv(matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _addmv(added: Any, matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _dot(first: Any, second: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(first)


def _trilinear(first: Any, weight: Any, second: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    # y[b, o] = sum over j of (sum over i of x1[b, i] w[o, i, j]) x2[b, j]
    outputs, left, right = weight
    samples = prod(first) // left
    return 2 * samples * outputs * (left * right + right)


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    # (..., queries, features) with (..., keys, features), then with (..., keys, values)
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_GAPS = {
    aten.mv: _mv,
    aten.addmv: _addmv,
    aten.dot: _dot,
    aten._trilinear: _trilinear,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # torch 2.14 and before do not count it
}
