"""How many units standout removes when, and which."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.budget import Allocation, Budget
from compress.errors import InputError, ModelError
from compress.graph import analyse, parameters, trace
from compress.plugin import Context
from compress_plugins.standout_targets import Removed, Retention, Targets, events, goal


def context(*widths: int, **given: Any) -> Context:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((6, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    made = analyse(trace(nn.Sequential(*layers[:-1]).eval(), (torch.randn(2, 6),)))
    return Context(made, **({"has_budget": False} | given))


def at_random(targets: Targets, seed: int = 0) -> dict[str, Retention]:
    generator = torch.Generator().manual_seed(seed)
    return {n: Retention(*torch.rand(2, size, generator=generator)) for n, size in targets.sizes.items()}


def through(targets: Targets) -> list[Removed]:
    found, gone = [], Removed()
    for event in range(1, targets.prunings + 1):
        gone, done = targets.chosen(event, at_random(targets), gone)
        found.append(gone)
        if done:
            break
    assert done
    return found


@pytest.mark.parametrize(
    ("gamma", "left"),
    [(0.5, [256, 128, 64, 32, 16, 8, 4, 2, 1]), (0.25, [384, 288, 216, 162, 122, 91, 68, 51, 38])],
)
def test_the_paper_s_512(gamma: float, left: list[int]) -> None:
    assert [512 - goal(512, 511, gamma, event) for event in range(1, 10)] == left


def test_how_many_prunings() -> None:
    assert [events(512, 512 - n, 0.5) for n in (128, 64, 32, 16, 1)] == [2, 3, 4, 5, 9]
    assert events(512, 0, 0.5) == 0 and events(10, 9, 1.0) == 1
    assert goal(512, 400, 0.5, 2) == 384 and goal(512, 400, 0.5, 3) == 400


@settings(deadline=None)
@given(st.integers(2, 600), st.floats(0.01, 1), st.data())
def test_the_goal_grows_to_the_target(size: int, gamma: float, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, size - 1))
    last = events(size, most, gamma)
    goals = [goal(size, most, gamma, event) for event in range(last + 2)]
    assert goals == sorted(goals) and goals[0] == 0 and goals[last] == most and goals[last - 1] < most


def test_each_layer_for_itself() -> None:
    targets = Targets(context(16, 10, 4), 4, 0.5, "layer")
    assert targets.wanted == {"0": 12, "2": 6, "4": 0} and targets.prunings == 2
    one, two = through(targets)
    assert {n: len(u) for n, u in one.items()} == {"0": 8, "2": 5} and {n: len(u) for n, u in two.items()} == {
        "0": 12, "2": 6,
    }  # fmt: skip
    assert set(one["0"]) < set(two["0"]) and set(one["2"]) < set(two["2"])
    mean = at_random(targets)["0"].mean
    assert set(two["0"]) == set(mean.argsort()[:12].tolist())


def test_ties_go_by_activation_and_then_by_index() -> None:
    targets = Targets(context(8), 4, 1.0, "layer")
    mean = torch.tensor([0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.5, 0.9])
    size = torch.tensor([2.0, 1.0, 9.0, 3.0, 1.0, 3.0, 0.5, 0.1])
    removed, done = targets.chosen(1, {"0": Retention(mean, size)}, {})
    assert done and removed == {"0": [1, 2, 4, 6]}
    removed, _ = targets.chosen(1, {"0": Retention(torch.full((8,), 0.5), torch.ones(8))}, {})
    assert removed == {"0": [0, 1, 2, 3]}


def test_all_layers_together_by_retention_over_the_mean_of_the_layer() -> None:
    targets = Targets(context(8, 8, has_budget=True, budget=Budget("ratio", 0.5)), None, 0.5, "together")
    spread = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1, 1.0, 1.0, 1.0])
    even = torch.tensor([0.2, 0.2, 0.2, 0.21, 0.21, 0.21, 0.21, 0.21])  # lower, but not beside its own layer
    found = {"0": Retention(spread, torch.ones(8)), "2": Retention(even, torch.ones(8))}
    removed, done = targets.chosen(1, found, {})
    assert done and len(removed["0"]) == 5 and len(removed["2"]) == 3
    assert removed["0"] == [0, 1, 2, 3, 4] and removed["2"] == [0, 1, 2]


@pytest.mark.parametrize("ranking", ["layer", "together"])
@pytest.mark.parametrize("budget", [Budget("params", 0.2), Budget("macs", 0.3), Budget("ratio", 0.7)])
def test_a_budget_is_met_by_and_by(budget: Budget, ranking: Any) -> None:
    given = context(32, 24, has_budget=True, budget=budget)
    targets = Targets(given, None, 0.4, ranking)
    steps = through(targets)
    counts = [sum(map(len, step.values())) for step in steps]
    assert len(counts) > 1 and counts == sorted(counts) and counts[0] == pytest.approx(0.4 * 56, abs=1)
    for before, after in itertools.pairwise(steps):
        assert all(set(units) <= set(after[name]) for name, units in before.items())
    if budget.kind == "params":
        left = parameters(given.coupling, given.coupling.alive(steps[-1]))
        assert 0.15 * parameters(given.coupling) < left <= 0.2 * parameters(given.coupling)
    if budget.kind == "ratio":
        assert counts[-1] == pytest.approx(0.7 * 56, abs=1)


def test_widths_are_rounded() -> None:
    targets = Targets(context(32, 24, allocation=Allocation(round_to=8)), 9, 0.5, "layer")
    for step in through(targets):
        assert all((targets.sizes[name] - len(units)) % 8 == 0 for name, units in step.items())
    assert targets.wanted == {"0": 24, "2": 16}


def test_half_where_nothing_is_said() -> None:
    targets = Targets(context(16, 10), None, 0.5, "layer")
    assert targets.wanted == {"0": 8, "2": 5} and targets.prunings == 1


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="--nodes 16: no layer with a gate has more units: 0 has 16, 2 has 10"):
        Targets(context(16, 10), 16, 0.5, "layer")
    with pytest.raises(InputError, match="--nodes and a budget both say"):
        Targets(context(16, has_budget=True), 4, 0.5, "layer")
    with pytest.raises(InputError, match="--ranking together leaves that open"):
        Targets(context(16), 4, 0.5, "together")
    with pytest.raises(ModelError, match="cannot be met"):
        Targets(context(16, has_budget=True, budget=Budget("params", 5)), None, 0.5, "layer")
    with pytest.raises(ModelError, match="no unit of the layers with gates may go"):
        Targets(context(16, allocation=Allocation(round_to=32)), None, 0.5, "layer")
