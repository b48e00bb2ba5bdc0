"""The runtimes in which latency can be measured, by name."""

from __future__ import annotations

import torch

from compress.errors import InputError
from compress.latency.timer import Timer

TARGETS = ("onnxruntime-cpu", "cuda")


def check_target(target: str) -> None:
    """Whether latency can be measured on a target.

    Raises:
        InputError: It is none of ``TARGETS``, or there is no CUDA device.
    """
    if target == "none":
        raise InputError("target none has no latency", f"name the runtime: {' or '.join(TARGETS)}")
    if target not in TARGETS:
        raise InputError(f"target {target!r} is unknown", " or ".join(TARGETS))
    if target == "cuda" and not torch.cuda.is_available():
        raise InputError("target cuda: no CUDA device was found", "measure where there is one, or on onnxruntime-cpu")


def timer_of(target: str, threads: int) -> Timer:
    """What measures on a target.

    Raises:
        InputError: As `check_target`.
    """
    check_target(target)
    if threads < 1:
        raise InputError(f"latency needs at least one thread, got {threads}")
    if target == "cuda":
        from compress.latency.cuda import CudaTimer

        return CudaTimer(torch.device("cuda"))
    from compress.latency.cpu import OnnxRuntimeTimer  # onnx and its runtime take long to import

    return OnnxRuntimeTimer(threads)
