"""Timing that takes turns and leaves no trace."""

from __future__ import annotations

import gc
import time

import pytest
import torch
from torch import nn

from compress.errors import InputError
from compress.measure import latency, latency_pair


def test_latency_takes_turns_and_leaves_no_trace() -> None:
    calls: list[str] = []
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    seen: set[tuple[int, bool]] = set()

    def a() -> None:
        calls.append("a")
        seen.add((torch.get_num_threads(), gc.isenabled()))

    def b() -> None:
        calls.append("b")
        time.sleep(0.002)

    times = latency({"a": a, "b": b}, min_runs=5, min_seconds=0, warmup=2, threads=1, batch=8)
    assert calls == ["a", "b"] * 7
    assert seen == {(1, False)}
    assert (torch.get_num_threads(), gc.isenabled()) == (threads, collecting)
    assert 0 < times["a"].p50 < 0.002 <= times["b"].p50 <= times["b"].p90
    assert (times["b"].runs, times["b"].batch, times["b"].threads) == (5, 8, 1)
    assert latency({"b": b}, min_runs=1, min_seconds=0.02)["b"].runs >= 2


def test_latency_restores_after_an_error() -> None:
    def fails() -> None:
        raise ValueError("on purpose")

    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="on purpose"):
        latency({"x": fails}, threads=threads + 1)
    assert torch.get_num_threads() == threads and gc.isenabled()
    with pytest.raises(InputError):
        latency({})


def test_latency_pair_is_the_ratio() -> None:
    class Sleeps(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(self.seconds)
            return x

    pair = latency_pair(Sleeps(0.006), Sleeps(0.002), (torch.zeros(4, 1),), min_runs=5, min_seconds=0)
    assert pair.before.batch == 4
    assert pair.speedup == pair.before.p50 / pair.after.p50
    assert 1.2 < pair.speedup < 6 and 1.2 < pair.speedup_of_pairs < 6
