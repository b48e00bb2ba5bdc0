from __future__ import annotations

import torch
from torch import nn

from compress.graph import analyse, trace
from compress.pipeline.prunable import prunable
from compress.report import Held, Prunable


class Sorted(nn.Module):
    """Every index depends on all others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sort(1).values


def test_a_network_without_limits() -> None:
    module = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3))
    assert prunable(analyse(trace(module, (torch.randn(2, 2),)))) == Prunable(12, 12)


def test_one_reason_in_several_modules_is_one_entry() -> None:
    module = nn.Sequential(nn.Linear(2, 6), Sorted(), nn.Linear(6, 5), Sorted(), nn.Linear(5, 4), nn.Linear(4, 3))
    found = prunable(analyse(trace(module, (torch.randn(2, 2),))))
    assert (found.indices, found.total) == (8, 30)
    assert [(held.op, held.indices) for held in found.held] == [("aten::sort", 22)]
    assert found.held[0].places == ("1", "3")


def test_held_and_prunable_sum_up() -> None:
    module = nn.Sequential(nn.Linear(2, 6), Sorted(), nn.Linear(6, 5), nn.Linear(5, 4))
    found = prunable(analyse(trace(module, (torch.randn(2, 2),))))
    assert found.indices + sum(held.indices for held in found.held) == found.total
    assert all(isinstance(held, Held) for held in found.held)
