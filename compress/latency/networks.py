"""The latency of real networks in the runtime that they are meant for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.latency.targets import check_target
from compress.measure import Latency, LatencyPair, latency, latency_pair

Run = Callable[[], object]


@contextmanager
def running(module: nn.Module, inputs: Sequence[Tensor], target: str, threads: int = 1) -> Iterator[Run]:
    """A network on a target, as a function that runs it once on the inputs.

    Args:
        module: Left as it is. For ``onnxruntime-cpu`` it is exported into a temporary folder.
        inputs: Examples, batch first.
        target: ``onnxruntime-cpu`` or ``cuda``.
        threads: Of ONNX Runtime.

    Raises:
        InputError: The target is unknown, has no latency, or is not there.
        ModelError: The network cannot be expressed in ONNX, or the file does not run.
    """
    check_target(target)
    if target == "cuda":
        yield _on_cuda(module, inputs)
        return
    from compress.latency.sessions import exported  # onnx and its runtime take long to import

    with exported(module, inputs) as made:
        yield made.runner(threads)


def _on_cuda(module: nn.Module, inputs: Sequence[Tensor]) -> Run:
    moved = copy.deepcopy(module).to("cuda")
    examples = [each.to("cuda") for each in inputs]

    def once() -> None:
        moved(*examples)
        torch.cuda.synchronize()

    return once


def measured(
    module: nn.Module,
    inputs: Sequence[Tensor],
    target: str = "onnxruntime-cpu",
    threads: int = 1,
    *,
    min_runs: int = 20,
    warmup: int = 3,
) -> Latency:
    """Seconds per call of a network on a target; arguments and errors as of `running` and `measure.latency`."""
    with running(module, inputs, target, threads) as run, torch.inference_mode():
        found = latency({"": run}, min_runs=min_runs, warmup=warmup, threads=threads)[""]
    return _said(found, inputs, target)


def measured_pair(
    before: nn.Module,
    after: nn.Module,
    inputs: Sequence[Tensor],
    target: str = "onnxruntime-cpu",
    threads: int = 1,
    *,
    min_runs: int = 20,
    warmup: int = 3,
) -> LatencyPair:
    """Two networks on a target in turns; arguments and errors as of `running` and `measure.latency_pair`."""
    with running(before, inputs, target, threads) as first, running(after, inputs, target, threads) as second:
        return in_turns(first, second, inputs, target, threads, min_runs=min_runs, warmup=warmup)


def in_turns(
    first: Run, second: Run, inputs: Sequence[Tensor], target: str, threads: int, *, min_runs: int = 20, warmup: int = 3
) -> LatencyPair:
    """Two networks that `running` gave, timed in turns."""
    pair = latency_pair(first, second, (), min_runs=min_runs, warmup=warmup, threads=threads)
    return replace(pair, before=_said(pair.before, inputs, target), after=_said(pair.after, inputs, target))


def _said(found: Latency, inputs: Sequence[Tensor], target: str) -> Latency:
    runtime = "torch" if target == "cuda" else "onnxruntime"
    return replace(found, batch=next((int(x.shape[0]) for x in inputs if x.dim()), 1), runtime=runtime)
