"""ONNX Runtime: sessions of exported networks, and what each kernel of one takes."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.export.onnx import export_onnx

Feed = dict[str, NDArray[Any]]
_BUSY = 0.5  # seconds after which runs on a busy machine are taken as they are


def open_session(model: str | bytes, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU that computes on so many threads.

    Args:
        model: A file, or its bytes.
        threads: They rest as soon as a run is over.
        profile: How the files of a profile are to begin; None: without.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that wait in a loop for the next run would slow down whatever runs in turns with it
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Exported:
    """A network as an ONNX file, and what to feed it with."""

    file: Path
    feed: Feed

    def runner(self, threads: int) -> Callable[[], object]:
        """A function that runs it once."""
        session = open_session(str(self.file), threads)
        return lambda: session.run(None, self.feed)

    def nodes(self) -> int:
        """How many kernels one run starts; many a node of the file is folded into another."""
        return len(_profile(str(self.file), 1, lambda session: session.run(None, self.feed)))


@contextmanager
def exported(module: nn.Module, inputs: Sequence[Tensor]) -> Iterator[Exported]:
    """The module as an ONNX file that lies there as long as the context lasts.

    Raises:
        ModelError: The module cannot be expressed in ONNX, or the file does not run.
    """
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        file = Path(folder, "network.onnx")
        export_onnx(module, inputs, file)
        names = [each.name for each in open_session(str(file), 1).get_inputs()]
        arrays = [each.detach().cpu().contiguous().numpy() for each in inputs]
        yield Exported(file, dict(zip(names, arrays, strict=True)))


def kernels(
    model: bytes, threads: int, *, runs: int, seconds: float, between: Callable[[], object]
) -> list[tuple[str, list[float]]]:
    """What every node of a model takes on random numbers, by ONNX Runtime's own profiler.

    Args:
        model: An ONNX file's bytes.
        threads: Of a run.
        runs: At least so many, after two that do not count. On one thread, runs from which another program took the
            processor do not count either, unless there are no others.
        seconds: Go on for so long, up to ten times as many runs; on a busy machine for half a second at most.
        between: Called before each run, to empty the caches.

    Returns:
        Kind of the node and its seconds in each run that counts.
    """
    undisturbed: list[bool] = []

    def work(session: onnxruntime.InferenceSession) -> None:
        feed = {each.name: random(each.shape) for each in session.get_inputs()}
        start = time.perf_counter()
        for _ in range(2 + 10 * runs):
            between()
            undisturbed.append(_alone(lambda: session.run(None, feed)) or threads > 1)
            spent, tries = time.perf_counter() - start, len(undisturbed) - 2
            if (sum(undisturbed[2:]) >= runs and spent > seconds) or (tries >= runs and spent > _BUSY):
                break

    found = _profile(model, threads, work)
    counts = [i for i in range(2, len(undisturbed)) if undisturbed[i]] or list(range(2, len(undisturbed)))
    return [(op, [times[i] for i in counts]) for op, times in found]


def _alone(call: Callable[[], object]) -> bool:
    """Whether the processor worked for this thread all the time that a call took."""
    wall, own = time.perf_counter(), time.thread_time()
    call()
    wall, own = time.perf_counter() - wall, time.thread_time() - own
    return wall <= 1.05 * own + 2e-5


def _profile(
    model: str | bytes, threads: int, work: Callable[[onnxruntime.InferenceSession], object]
) -> list[tuple[str, list[float]]]:
    """Kind of each node and its seconds in every run."""
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        session = open_session(model, threads, Path(folder, "profile"))
        work(session)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"], event["args"]["op_name"]].append(1e-6 * event["dur"])
    return [(op, times) for (_, op), times in found.items()]


def random(shape: Sequence[int]) -> NDArray[np.float32]:
    """Small random numbers; the same few thousand again and again, as they are only multiplied."""
    block = np.random.default_rng(0).standard_normal(min(math.prod(shape), 4093), dtype=np.float32) / 10
    return np.resize(block, shape)
