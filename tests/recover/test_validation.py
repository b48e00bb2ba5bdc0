"""Accuracy and loss on samples that are kept out, by hand."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.data import Split
from compress.recover.validation import validate
from compress.training import Training

SCORES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
LOSSES = [log(2), log(1 + exp(-2)), log(1 + exp(2))]


def accelerator(rank: int, processes: int, rest: tuple[float, float] = (0.0, 0.0)) -> Any:
    """One of several processes; the others found the rest."""

    def reduce(found: Tensor, how: str) -> Tensor:
        assert how == "sum"
        return found + torch.tensor(rest)

    return SimpleNamespace(device=torch.device("cpu"), process_index=rank, num_processes=processes, reduce=reduce)


def test_all_samples_in_evaluation() -> None:
    model = nn.Dropout(0.9).train()
    found = validate(model, Split(SCORES, torch.zeros(3, dtype=torch.int64)), Training(), accelerator(0, 1))
    assert found == pytest.approx((2 / 3, sum(LOSSES) / 3))
    assert not model.training


def test_each_process_looks_at_its_share() -> None:
    """The second of two has the second sample; the first has found one of two right."""
    data, rest = Split(SCORES, torch.zeros(3, dtype=torch.int64)), (1.0, LOSSES[0] + LOSSES[2])
    found = validate(nn.Identity(), data, Training(), accelerator(1, 2, rest))
    assert found == pytest.approx((2 / 3, sum(LOSSES) / 3))
