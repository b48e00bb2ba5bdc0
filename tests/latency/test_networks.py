from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import InputError
from compress.latency import measured, measured_pair
from compress.measure import Latency


def test_two_networks_in_turns() -> None:
    one, other = nn.Linear(4, 3), nn.Linear(4, 2)
    inputs = (torch.zeros(5, 4),)
    pair = measured_pair(one, other, inputs, min_runs=3, warmup=0)
    assert pair.speedup == pair.before.p50 / pair.after.p50
    for found in (pair.before, pair.after):
        assert (found.batch, found.threads, found.runtime) == (5, 1, "onnxruntime")
        assert found.runs >= 3 and 0 < found.p50 <= found.p90
    assert Latency(1.0, 1.0, 1, 1, 1).runtime == "torch"


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        measured(nn.Linear(2, 2), (torch.zeros(1, 2),), "cuda")
