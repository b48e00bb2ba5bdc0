"""`compress measure`: size and speed, alone or side by side."""

from __future__ import annotations

import torch

from compress.errors import InputError
from compress.inputs import written
from compress.measure import Latency, count_macs, count_nonzero, count_parameters, latency, latency_pair, tensor_bytes
from compress.pipeline.opening import Opened, open_model
from compress.progress import Progress
from compress.request import MeasureRequest
from compress.result import Measurement, Timing


def measure_model(request: MeasureRequest, progress: Progress) -> Measurement:
    """Count and time a model, or two that take turns.

    Raises:
        InputError: A file or what was said of it is wrong, or the two take different inputs.
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
    inputs = tuple(x.to(first.device) for x in first.examples(request.batch_size, request.settings.seed))
    threads = request.settings.threads or 1
    modules = [o.loaded.module.to(first.device) for o in (first, second) if o is not None]
    progress.step(f"Timing, batch {request.batch_size}, {threads} thread{'s' if threads > 1 else ''}")
    if second is None:
        with torch.inference_mode():
            times = latency(
                {"model": lambda: modules[0](*inputs)},
                min_runs=request.runs,
                warmup=request.warmup,
                threads=threads,
                batch=request.batch_size,
            )
        return _result(request, [(first, times["model"])], None, first)
    pair = latency_pair(modules[0], modules[1], inputs, min_runs=request.runs, warmup=request.warmup, threads=threads)
    return _result(request, [(first, pair.before), (second, pair.after)], pair.speedup, first)


def _written(opened: Opened) -> str:
    return written(opened.shapes, opened.types)


def _dtypes(opened: Opened) -> list[tuple[tuple[int, ...], str]]:
    return [(shape, t.dtype) for shape, t in zip(opened.shapes, opened.types, strict=True)]


def _result(
    request: MeasureRequest, timed: list[tuple[Opened, Latency]], ratio: float | None, first: Opened
) -> Measurement:
    models = tuple(
        Timing(
            path=opened.loaded.path,
            parameters=count_parameters(opened.loaded.module),
            nonzero=count_nonzero(opened.loaded.module),
            macs=count_macs(opened.loaded.module.cpu(), opened.examples(2)).total,
            bytes=tensor_bytes(opened.loaded.module),
            p50=time.p50,
            p90=time.p90,
        )
        for opened, time in timed
    )
    last = timed[-1][1]
    return Measurement(models, ratio, request.batch_size, last.runs, last.threads, str(first.device))
