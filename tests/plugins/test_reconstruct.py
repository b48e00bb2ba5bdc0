from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph import analyse, slice_graph, trace
from compress.plugin import Budget, Context, make_plan
from compress.recover import compensate
from compress.testing import example_networks
from compress_plugins.dependency import Dependency
from compress_plugins.reconstruct import Reconstruct


def context(module: nn.Module, x: Tensor, ratio: float = 0.34, **more: Any) -> Context:
    data = SimpleNamespace(train=SimpleNamespace(inputs=x, targets=torch.zeros(len(x), dtype=torch.int64)))
    return Context(analyse(trace(module.eval(), (x[:2],))), Budget("ratio", ratio), data=data, **more)


def duplicated(groups: int = 1) -> nn.Sequential:
    """Of the first layer's six channels 1 copies 0 and 5 copies 4, at three times their size."""
    net = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, groups=groups))
    with torch.no_grad():
        for copied, original in ((1, 0), (5, 4)):
            net[0].weight[copied] = 3 * net[0].weight[original]  # type: ignore[operator, index]
            net[0].bias[copied] = 3 * net[0].bias[original]  # type: ignore[operator, index]
    return net


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("groups", [1, 2])
def test_redundant_units_go_and_nothing_is_lost(groups: int) -> None:
    net, x = duplicated(groups), torch.randn(100, 2, 7, 7)
    seen = context(net, x)
    plan = make_plan(Reconstruct(), seen)
    (gone,) = (set(map(int, u)) for u in plan.removed.values())
    assert len(gone & {0, 1}) == 1
    assert len(gone & {4, 5}) == 1
    alive = seen.coupling.alive(plan.removed)
    done = compensate(seen.coupling, alive, slice_graph(seen.coupling, alive), x, ridge=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(done.module(x), net(x), rtol=1e-4, atol=1e-5)
    assert len(set(map(int, make_plan(Dependency(), seen).removed["0"])) & {0, 1}) == 1  # norms see only the size


def test_a_constant_unit_costs_nothing_where_there_is_a_bias() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[2] = 0  # type: ignore[operator]
        net[0].bias[2] = 50.0  # type: ignore[operator]
    plan = make_plan(Reconstruct(), context(net, torch.randn(60, 3), 0.25))
    assert plan.removed["0"].tolist() == [2]


def test_any_ratio_cuts_one_order() -> None:
    net, x = duplicated(), torch.randn(60, 2, 7, 7)
    gone = [set(map(int, make_plan(Reconstruct(), context(net, x, r)).removed["0"])) for r in (0.2, 0.5, 0.8)]
    assert gone[0] < gone[1] < gone[2]
    whole = make_plan(Reconstruct(), replace(context(net, x), budget=Budget("params", 0.5)))
    assert len(whole.removed["0"]) > 0


def test_without_training_samples() -> None:
    net = duplicated()
    seen = Context(analyse(trace(net.eval(), (torch.randn(2, 2, 7, 7),))))
    with pytest.raises(InputError, match="looks at training samples, and none were given") as error:
        make_plan(Reconstruct(), seen)
    assert "--data" in error.value.hint
    only_test = Context(seen.coupling, data=SimpleNamespace(train=None))
    with pytest.raises(InputError, match="the data has no training part"):
        make_plan(Reconstruct(), only_test)


def test_groups_without_a_problem_are_ranked_as_by_dependency() -> None:
    net, x = duplicated(), torch.randn(60, 2, 7, 7)
    seen = context(net, x)
    scores = Reconstruct(features=53).score(seen.groups[0], seen)
    torch.testing.assert_close(scores, Dependency().score(seen.groups[0], seen))
    plan = make_plan(Reconstruct(features=53), seen)
    assert plan.notes["0"]["ranked"] == "as by dependency: 2.weight has 54 inputs, too many for a normal matrix"
    attention = next((m, x) for name, m, (x,) in example_networks() if name == "attention")
    seen = context(attention[0], torch.randn(40, 5, 6), 0.5)
    plan = make_plan(Reconstruct(), seen)
    assert any("no linear layer or convolution sums over its units" in n["ranked"] for n in plan.notes.values())


@pytest.mark.parametrize("options", [{"samples": 0}, {"ridge": 0.0}])
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Reconstruct(**options)
