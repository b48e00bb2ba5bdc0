"""One process and several: the same weights. And what only one of them does."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import compress
from compress.errors import InputError
from compress.recover.launch import Interrupt, accelerator, is_main, keep_freed_memory, processes

ROOT = Path(__file__).resolve().parents[2]

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Linear(54, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))

def data():
    from sklearn.datasets import load_digits
    digits = load_digits()
    images, labels = digits.images[:, None].astype("float32") / 16, digits.target
    return images[:210], labels[:210], images[300:350], labels[300:350]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NETWORK)
    space: dict[str, object] = {}
    exec(NETWORK, space)
    torch.manual_seed(0)
    torch.save(space["Net"]().state_dict(), tmp_path / "net.pt")  # type: ignore[operator]
    return tmp_path


def test_two_processes_give_the_weights_of_one(
    folder: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch norm, images changed at random, batches in two parts, and a batch size that 2 does not divide."""
    command = ["finetune", "net.pt", "--arch", "net.py:Net", "--data", "net.py:data"]
    command += ["--epochs", "2", "--batch-size", "21", "--accumulate", "2", "--augment", "crop", "--device", "cpu"]
    many = in_two_processes(folder, *command, "-o", "two")
    assert many.stderr.count("Epoch 2 of 2") == 1 and many.stdout.count("accuracy") == 1  # one of them speaks
    assert {p.name for p in folder.iterdir()} >= {"two"} and not (folder / "two.training").exists()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("compress.pipeline.finetune.reloaded", lambda *_: 0.0)  # a process of its own
    done = invoke(*command, "-o", "one")
    assert done.code == 0, done.err
    one, two = (dict(compress.load(folder / name).state_dict()) for name in ("one", "two"))
    assert one.keys() == two.keys()
    start = torch.load(folder / "net.pt")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4)
    assert float((one["conv.weight"] - start["conv.weight"]).abs().max()) > 0.01  # it has been trained


def test_two_processes_give_the_plan_of_one(
    folder: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a method that looks at gradients, a refit and a training after it."""
    command = ["prune", "net.pt", "--arch", "net.py:Net", "--data", "net.py:data", "--method", "taylor"]
    command += ["--ratio", "0.5", "--epochs", "1", "--batch-size", "30", "--device", "cpu"]
    many = in_two_processes(folder, *command, "-o", "two")
    assert many.stderr.count("Epoch 1 of 1") == 1
    monkeypatch.chdir(folder)
    # The package gives its function the name of this module
    monkeypatch.setattr(importlib.import_module("compress.pipeline.writing"), "reloaded", lambda *_: 0.0)
    done = invoke(*command, "-o", "one")
    assert done.code == 0, done.err
    one, two = ((folder / name / "plan.json").read_text() for name in ("one", "two"))
    assert one == two and '"removed_units":{"conv":[' in one
    weights = [dict(compress.load(folder / name).state_dict()) for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-4)


def in_two_processes(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "plugins"))), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [sys.executable, *torchrun, "-m", "compress", *command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done


def test_the_main_process_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert is_main() and processes() == 1
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not is_main() and processes() == 4
    with pytest.raises(InputError, match="each of 4 processes takes a GPU of its own"):
        accelerator("no", torch.device("cuda:1"))


def test_a_first_ctrl_c_waits_and_a_second_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        found = [interrupt.wanted]
        signal.raise_signal(signal.SIGINT)
        assert [*found, interrupt.wanted] == [False, True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="is about glibc")
def test_what_is_freed_is_there_for_the_next_step() -> None:
    """Eight blocks of 4 MB, allocated and freed twice: Linux counts every page that it has to find for them."""
    resource = pytest.importorskip("resource")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes, size = ctypes.c_void_p, [ctypes.c_void_p], 4 << 20

    def step() -> None:
        blocks = [libc.malloc(ctypes.c_size_t(size)) for _ in range(8)]
        for block in blocks:
            ctypes.memset(block, 1, size)
        for block in blocks:
            libc.free(block)

    keep_freed_memory()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 8 * size // 4096 // 10
