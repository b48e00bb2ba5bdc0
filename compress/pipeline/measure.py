"""`compress measure`: size and speed, alone or side by side."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from compress.counting import count_macs, count_nonzero, count_parameters, tensor_bytes
from compress.errors import InputError, ModelError
from compress.inputs import written
from compress.latency import measured, measured_pair
from compress.measure import Latency, LatencyPair, latency, latency_pair
from compress.pipeline.opening import Opened, open_model, traced
from compress.progress import Progress
from compress.request import MeasureRequest
from compress.result import Measurement, Timing
from compress.wording import plural


def measure_model(request: MeasureRequest, progress: Progress) -> Measurement:
    """Count and time a model, or two that take turns.

    Raises:
        InputError: A file or what was said of it is wrong, or the two take different inputs.
        ModelError: A model cannot be expressed in the runtime that is asked for.
    """
    first = open_model(request.model, request.settings, progress=progress)
    second = None
    if request.against is not None:
        second = open_model(request.against, request.settings, progress=progress)
        if _dtypes(first) != _dtypes(second):
            raise InputError(
                f"{first.loaded.path} takes {_written(first)}, {second.loaded.path} takes {_written(second)}: "
                "two models are timed on the same inputs",
                "measure each alone, or say the input with --input-shape where it is only written differently",
            )
    threads = request.settings.threads or 1
    progress.step(f"Timing, batch {request.batch_size}, {plural(threads, 'thread')}")
    inputs = first.examples(request.batch_size, request.settings.seed)
    opened = [each for each in (first, second) if each is not None]
    timed = (_in_torch if request.runtime == "torch" else _in_onnxruntime)(request, opened, inputs, threads)
    return _result(request, opened, timed)


_Timed = Latency | LatencyPair


def _in_torch(request: MeasureRequest, opened: list[Opened], inputs: tuple[Tensor, ...], threads: int) -> _Timed:
    device = opened[0].device
    modules = [each.to(device) for each in _alike(opened)]
    inputs = tuple(x.to(device) for x in inputs)
    settings: dict[str, int] = {"min_runs": request.runs, "warmup": request.warmup, "threads": threads}
    if len(modules) == 2:
        return latency_pair(modules[0], modules[1], inputs, **settings)
    with torch.inference_mode():
        return latency({"model": lambda: modules[0](*inputs)}, batch=request.batch_size, **settings)["model"]


def _alike(opened: list[Opened]) -> list[nn.Module]:
    """Both as graphs where one is: calls of operators cost other microseconds than those of a class's modules."""
    modules = [each.loaded.module for each in opened]
    if len({isinstance(each, fx.GraphModule) for each in modules}) == 1:
        return modules
    try:
        programs = [traced(each) for each in opened]
    except ModelError:
        return modules
    return [each.module for each in programs] if all(each.dynamic_batch for each in programs) else modules


def _in_onnxruntime(request: MeasureRequest, opened: list[Opened], inputs: tuple[Tensor, ...], threads: int) -> _Timed:
    settings: dict[str, int] = {"min_runs": request.runs, "warmup": request.warmup}
    modules = [each.loaded.module for each in opened]
    if len(modules) == 2:
        return measured_pair(modules[0], modules[1], inputs, "onnxruntime-cpu", threads, **settings)
    return measured(modules[0], inputs, "onnxruntime-cpu", threads, **settings)


def _written(opened: Opened) -> str:
    return written(opened.shapes, opened.types)


def _dtypes(opened: Opened) -> list[tuple[tuple[int, ...], str]]:
    return [(shape, t.dtype) for shape, t in zip(opened.shapes, opened.types, strict=True)]


def _result(request: MeasureRequest, opened: list[Opened], timed: _Timed) -> Measurement:
    times = [timed.before, timed.after] if isinstance(timed, LatencyPair) else [timed]
    models = tuple(
        Timing(
            path=each.loaded.path,
            parameters=count_parameters(each.loaded.module),
            nonzero=count_nonzero(each.loaded.module),
            macs=count_macs(each.loaded.module.cpu(), each.examples(2)).total,
            bytes=tensor_bytes(each.loaded.module),
            p50=time.p50,
            p90=time.p90,
        )
        for each, time in zip(opened, times, strict=True)
    )
    ratio = timed.speedup if isinstance(timed, LatencyPair) else None
    device = str(opened[0].device) if request.runtime == "torch" else "cpu"
    last = times[-1]
    return Measurement(models, ratio, request.batch_size, last.runs, last.threads, device, request.runtime)
