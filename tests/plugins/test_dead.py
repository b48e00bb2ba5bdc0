from __future__ import annotations

import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plugin import Context, make_plan
from compress.testing import check_plugin
from compress_plugins.dead import Dead


def test_what_is_there_stays_and_what_is_zero_is_told() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 2.0]]))
        module.get_parameter("2.weight").fill_(1.0)
    plan = make_plan(Dead(), Context(analyse(trace(module, (torch.randn(2, 2),)))))
    assert {n: m.int().tolist() for n, m in plan.masks.items()} == {
        "0.weight": [[1, 0], [0, 0], [1, 1]],
        "2.weight": [[1, 1, 1]],
    }
    assert plan.notes["0.weight"] == {"weights": 6, "kept_weights": 3}


def test_conformance() -> None:
    check_plugin(Dead())
