"""How long a call takes, measured in turns with whatever it is compared with."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor

from compress.errors import InputError


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
