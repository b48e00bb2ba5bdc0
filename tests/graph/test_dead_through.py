"""What lies between a unit that is dead and the layers behind it: pools, flattening, normalisation over features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.graph.test_dead import gone, removal


@pytest.mark.parametrize(
    ("pool", "goes"),
    [
        (nn.MaxPool2d(3, 1, padding=1), True),  # never takes what it pads with
        (nn.AvgPool2d(3, 1, padding=1), False),  # counts zeros at the edges
        (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), True),
        (nn.AvgPool2d(2), True),
        (nn.AdaptiveAvgPool2d(2), True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("silent", [False, True])
def test_pools(pool: nn.Module, goes: bool, silent: bool) -> None:
    """A channel that is 0.5 everywhere; zero goes through any of them."""
    torch.manual_seed(0)
    activation = nn.Tanh() if silent else nn.Sigmoid()
    module = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), activation, pool, nn.Conv2d(3, 2, 2))
    result = removal(module, torch.randn(2, 1, 6, 6), zero={"0.weight": 1})
    assert gone(result) == ({"0": [1]} if goes or silent else {})
    assert result.carried == ({"0": 1} if goes and not silent else {})


def test_a_channel_is_several_columns_behind_a_flattening() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, 2)).double()
    weight, bias = (module.get_parameter(f"3.{name}").detach().clone() for name in ("weight", "bias"))
    constant = torch.sigmoid(module.get_parameter("0.bias").detach()[1])
    result = removal(module, torch.randn(2, 1, 3, 3), zero={"0.weight": 1})
    assert gone(result) == {"0": [1]} and result.carried == {"0": 1}
    small = result.module
    torch.testing.assert_close(small.get_parameter("3.weight"), torch.cat((weight[:, :4], weight[:, 8:]), 1))
    torch.testing.assert_close(small.get_parameter("3.bias"), bias + constant * weight[:, 4:8].sum(1))


@pytest.mark.parametrize("norm", [nn.Softmax(1), nn.LayerNorm(4), nn.GroupNorm(1, 4)], ids=repr)
def test_what_is_compared_with_its_neighbours_stays(norm: Any) -> None:
    """Unread behind it, and a constant in front of it: both still have a share in the others."""
    module = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2))
    result = removal(module, torch.randn(2, 3), zero={"0.weight": 1, "2.weight": (slice(None), 2)})
    assert gone(result) == {}


def test_outputs_stay_though_they_are_constants() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    assert gone(removal(module, torch.randn(2, 3), zero={"2.weight": 1})) == {}
