"""Where a training runs: one process or several, told by how the command was launched."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from compress.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt


def processes() -> int:
    """How many processes ``torchrun`` or ``accelerate launch`` has started; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def accelerator(precision: str, device: torch.device) -> Accelerator:
    """What runs the loop on this device, and with the other processes where there are some.

    Raises:
        InputError: The device cannot compute in this precision, or one GPU is named for several processes.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if precision == "fp16" and device.type == "cpu":  # Accelerate would compute in 32 bits without a word
        raise InputError("--precision fp16 needs a GPU, and the training runs on the CPU", "--precision bf16")
    if processes() > 1 and device.index is not None:
        raise InputError(f"--device {device}: each of {processes()} processes takes a GPU of its own", "--device cuda")
    AcceleratorState._reset_state(reset_partial_state=True)  # it may hold the settings of an earlier training
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]  # they are equal everywhere: see modes.py
    try:
        with _named_device(device):
            made = Accelerator(cpu=device.type == "cpu", mixed_precision=precision, kwargs_handlers=handlers)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--precision {precision}: {reason}", "--precision no, or --precision bf16") from error
    if distributed.is_initialized():
        atexit.register(_leave)
    if made.device.type == "cpu":
        keep_freed_memory()
    return made


def keep_freed_memory() -> None:
    """Let the process keep what it frees for what it allocates next.

    Every step of a training frees its gradients, which glibc would give back to Linux, to ask for as much again in the
    next step; all of these pages have to be cleared anew then. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        mallopt(_TRIM_THRESHOLD, 1 << 30)


def from_main(value: T, device: torch.device) -> T:
    """What the main process has found, in all of them: rounding must not let two processes prune differently.

    Args:
        value: Of this process; anything that can be pickled.
        device: Where the processes compute.
    """
    if processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    accelerator("no", device)  # joins the others
    found = [value]
    broadcast_object_list(found)
    return found[0]


@contextmanager
def _named_device(device: torch.device) -> Iterator[None]:
    """Accelerate takes the first GPU unless the environment names another."""
    name = "ACCELERATE_TORCH_DEVICE"
    before = os.environ.get(name)
    if device.index is not None:
        os.environ[name] = str(device)
    try:
        yield
    finally:
        if device.index is not None:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Interrupt:
    """A first Ctrl-C lets the step end, so that its state can be saved; a second one ends the program."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


def tensorboard(folder: Path, step: int) -> Any:
    """A ``SummaryWriter``; what an interrupted run wrote after ``step`` is hidden.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard: TensorBoard is not installed", "pip install tensorboard") from error
    return SummaryWriter(str(folder), purge_step=step or None)
