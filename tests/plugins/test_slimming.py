from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import analyse, trace
from compress.plugin import Context, make_plan
from compress.testing import check_plugin
from compress_plugins.magnitude import Magnitude
from compress_plugins.slimming import Slimming


def net() -> nn.Sequential:
    module = nn.Sequential(
        *(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4, 2)),
    ).eval()
    with torch.no_grad():
        module.get_parameter("1.weight").copy_(torch.tensor([0.5, -2.0, 0.0]))
    return module


def test_scales_rank_channels_and_groups_without_go_by_magnitude() -> None:
    context = Context(analyse(trace(net(), (torch.randn(2, 1, 1, 1),))))
    normed, plain = context.groups
    assert Slimming().score(normed, context).tolist() == [0.5, 2.0, 0.0]
    assert torch.equal(Slimming().score(plain, context), Magnitude().score(plain, context))
    assert make_plan(Slimming(), context).notes == {"3": {"ranked": "as by magnitude: no batch norm"}}


def test_a_model_without_batch_norm_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    with pytest.raises(ModelError, match="no prunable layer is followed by one"):
        make_plan(Slimming(), Context(analyse(trace(module, (torch.randn(2, 2),)))))


def test_conformance() -> None:
    """Two of the three networks have no batch norm and are refused, which a method may."""
    check_plugin(Slimming())
