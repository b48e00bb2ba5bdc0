from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plugin import Budget, Context, make_plan
from compress_plugins.dependency import Dependency


@pytest.fixture(scope="module")
def context() -> Context:
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0], [0.0, 5.0]]))
        second.weight.copy_(torch.tensor([[8.0, -4.0, 0.0]]))
    module = nn.Sequential(first, nn.ReLU(), second).eval()
    return Context(analyse(trace(module, (torch.randn(2, 2),))), Budget("ratio", 0.34))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # rows: 2, 4, 25 with mean 31/3; column: 64, 16, 0 with mean 80/3
        (Dependency(), [6 / 31 + 192 / 80, 12 / 31 + 48 / 80, 75 / 31]),
        # rows: 2, 2, 5 with mean 3; column: 8, 4, 0 with mean 4
        (Dependency(p=1.0), [2 / 3 + 2, 2 / 3 + 1, 5 / 3]),
        (Dependency(p=1.0, lookahead=0.0), [2 / 3, 2 / 3, 5 / 3]),
        (Dependency(p=1.0, lookahead=0.5), [2 / 3 + 1, 2 / 3 + 0.5, 5 / 3]),
    ],
)
def test_scores_by_hand(context: Context, method: Dependency, expected: list[float]) -> None:
    assert method.score(context.groups[0], context).tolist() == pytest.approx(expected)


def test_lowest_goes(context: Context) -> None:
    assert make_plan(Dependency(), context).removed["0"].tolist() == [1]


def test_layer_of_zeros_has_no_say() -> None:
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)).eval()
    nn.init.zeros_(module[1].weight)  # type: ignore[arg-type]
    context = Context(analyse(trace(module, (torch.randn(2, 2),))))
    scores = Dependency().score(context.groups[0], context)
    assert torch.isfinite(scores).all()
    assert torch.allclose(scores, Dependency(lookahead=0).score(context.groups[0], context))


@pytest.mark.parametrize("options", [{"p": 0.0}, {"p": -1.0}, {"lookahead": -0.1}])
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Dependency(**options)
