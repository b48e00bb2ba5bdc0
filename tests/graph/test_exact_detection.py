"""Operations of torchvision, and elements written by index as its detectors do."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import nn

BOXES = torch.tensor([[0.0, 0.5, 1.0, 4.0, 5.0], [1.0, 0.0, 0.0, 3.5, 3.0]])


def test_features_of_regions_shrink_with_their_maps(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        pooled = torchvision.ops.roi_align(m.a(x), m.boxes.to(x.dtype), (2, 2))
        return m.head(pooled.flatten(1))

    module = lab.network(forward, a=nn.Conv2d(3, 6, 3), head=nn.Linear(24, 2), boxes=nn.Parameter(BOXES))
    with torch.no_grad():
        module.boxes.copy_(BOXES)
    outcome = lab.prune(module, torch.randn(2, 3, 8, 8))
    assert outcome.verification.passed
    assert lab.sizes(outcome.coupling) == {"a": 6}
    assert dict(outcome.coupling.flow.unruled) == {}


def test_rows_written_by_index(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        state = torch.zeros(x.shape[0], 4, 6, dtype=x.dtype)
        state[:, torch.tensor([0, 2])] = m.a(x[:, :2])
        state[:, torch.tensor([3, 1])] = m.b(x[:, 2:])
        return m.head(state)

    module = lab.network(forward, a=nn.Linear(3, 6), b=nn.Linear(3, 6), head=nn.Linear(6, 2))
    outcome = lab.prune(module, torch.randn(2, 4, 3))
    assert outcome.verification.passed
    assert lab.sizes(outcome.coupling) == {"a": 6}
