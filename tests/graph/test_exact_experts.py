"""Mixtures of experts as one grouped product over the rows of each expert."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.graph import slice_module
from compress.graph.freedom import freedom


def experts(m: Any, x: Any) -> Any:
    """Every row goes to the expert with the highest score; 4 experts of 16 gated features."""
    chosen, order = torch.sort(m.router(x).argmax(-1))
    rows = m.stem(x)[order]
    ends = torch.cumsum((chosen[:, None] == torch.arange(4)).sum(0), 0).to(torch.int32)
    gate, up = torch._grouped_mm(rows, m.up.transpose(1, 2), offs=ends).chunk(2, -1)
    y = torch._grouped_mm(torch.relu(gate) * up, m.down.transpose(1, 2), offs=ends)
    return m.head(torch.zeros_like(y).index_copy(0, order, y))


def _in_float32() -> bool:
    """Whether this version of torch multiplies groups of float32 rows without their numbers, as a recording does."""
    x = torch.empty(8, 8, device="meta")
    try:
        torch._grouped_mm(x, x.expand(2, 8, 8), offs=torch.empty(2, dtype=torch.int32, device="meta"))
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _in_float32(), reason="this torch has grouped products of 16-bit numbers alone")


@pytest.fixture
def network(lab: Any) -> nn.Module:
    parts = {"stem": nn.Linear(3, 24), "router": nn.Linear(3, 4), "head": nn.Linear(24, 2)}
    weights = {"up": nn.Parameter(torch.randn(4, 32, 24)), "down": nn.Parameter(torch.randn(4, 24, 16))}
    found: nn.Module = lab.network(experts, **parts, **weights)
    return found


def test_features_of_experts_go_in_eights(lab: Any, network: nn.Module) -> None:
    x = torch.randn(9, 3)
    outcome = lab.prune(network, x, ratio=0.5)
    assert outcome.verification.passed
    assert lab.sizes(outcome.coupling) == {"stem": 3, "up": 2, "down": 3}  # 24, 16 and 24 features
    stem = next(m for m in outcome.coupling.group("stem").members if m.tensor == "stem.weight")
    assert stem.index.tolist() == [list(range(i, i + 8)) for i in (0, 8, 16)]
    assert outcome.sliced(x).shape == (9, 2)  # in float32, where the operation checks its widths
    assert slice_module(network, outcome.coupling, outcome.alive, outcome.sliced).problem == ""
    # Experts and the classes are no channels; the router's input is the network's.
    held = {h.reason: h.indices for h in freedom(outcome.coupling).held}
    assert list(held.values()) == [4], held  # the router's outputs are compared with each other
