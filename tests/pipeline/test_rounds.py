"""Budgets approached in rounds."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.budget import Allocation, Budget
from compress.graph import Coupling, analyse, parameters, slice_verified, trace
from compress.pipeline.rounds import RoundContext, plan_in_rounds
from compress.plugin import Context, Group, make_plan
from compress.progress import Silent
from compress.testing import example_networks
from compress_plugins.activation import Activation
from compress_plugins.dependency import Dependency
from compress_plugins.reconstruct import Reconstruct
from compress_plugins.taylor import Taylor


@dataclass(frozen=True)
class Samples:
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Given:
    train: Samples


@pytest.fixture(scope="module", params=["mlp", "residual cnn", "attention"])
def context(request: Any) -> Context:
    _, module, inputs = next(each for each in example_networks() if each[0] == request.param)
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(40, *inputs[0].shape[1:], generator=generator)
    targets = torch.randint(4, (40,), generator=generator)
    return Context(analyse(trace(module, inputs)), Budget("ratio", 0.5), data=Given(Samples(samples, targets)))


@dataclass(frozen=True)
class Watched:
    """Dependency, and what it was asked."""

    seen: list[Any] = dataclasses.field(default_factory=list)

    def score(self, group: Group, context: Context) -> Tensor:
        self.seen.append((group.name, group.size, context))
        return Dependency().score(group, context)


def sets(plan: Any) -> dict[str, set[int]]:
    return {name: set(units.tolist()) for name, units in plan.removed.items()}


def test_one_round_is_the_plan_itself(context: Context) -> None:
    assert sets(plan_in_rounds(Dependency(), context, 1, None, Silent())) == sets(make_plan(Dependency(), context))


@pytest.mark.parametrize("budget", [Budget("ratio", 0.5), Budget("params", 0.5), Budget("macs", 0.4)])
@pytest.mark.parametrize("by", ["local", "global", "block"])
def test_what_has_gone_goes_again(context: Context, budget: Budget, by: Any) -> None:
    asked = dataclasses.replace(context, budget=budget, allocation=Allocation(by))
    watched = Watched()
    plan = plan_in_rounds(watched, asked, 3, None, Silent())
    rounds = list({id(c): c for _, _, c in watched.seen}.values())
    gone = [c.gone for c in rounds if isinstance(c, RoundContext)] + [plan.removed]
    assert len(rounds) == 3 and len(gone) == 3
    for earlier, later in itertools.pairwise(gone):
        assert all(set(units.tolist()) <= set(later[name].tolist()) for name, units in earlier.items())
    sizes = [sum(len(u) for u in g.values()) for g in gone]
    assert sizes == sorted(set(sizes))  # every round takes something
    assert not slice_verified(asked.coupling, plan.removed).rolled_back
    if budget.kind == "params":
        assert parameters(asked.coupling, asked.coupling.alive(plan.removed)) <= 0.5 * parameters(asked.coupling)


def test_a_round_sees_the_units_that_are_left(context: Context) -> None:
    watched = Watched()
    plan_in_rounds(watched, context, 2, None, Silent())
    again = [(name, size, c) for name, size, c in watched.seen if isinstance(c, RoundContext)]
    assert again
    for name, size, seen in again:
        assert size == context.coupling.group(name).size - len(seen.gone.get(name, ()))
        assert size == sum(len(cell.units) for k in seen.clusters for cell in k.cells if cell.group == name)


@pytest.mark.parametrize("method", [Activation(40), Taylor(40), Reconstruct(40)])
def test_methods_that_look_at_data(context: Context, method: Any) -> None:
    plan = plan_in_rounds(method, context, 3, None, Silent())
    once = make_plan(method, context)
    assert {n: len(u) for n, u in plan.removed.items()} == {n: len(u) for n, u in once.removed.items()}


def test_scores_are_those_of_the_smaller_network() -> None:
    """Two copies of a unit: once one has gone, the other is needed; scored once, both go.

    Outputs: unit 0 and 1 carry the same input, 2 a smaller one. The score is what else carries a unit's input.
    """

    @dataclass(frozen=True)
    class Alone:
        def score(self, group: Group, context: Context) -> Tensor:
            rows = context.unit_weights(group)[0][:, :3]
            others = (rows @ rows.T).fill_diagonal_(0).sum(1)
            return rows.norm(dim=1) - others

    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    net = nn.Sequential(first, nn.ReLU(), last).eval()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0.5, 0], [0, 0, 2.0]]))
        first.bias.zero_()
    context = Context(analyse(trace(net, (torch.randn(2, 3),))), Budget("ratio", 0.5))
    assert sets(make_plan(Alone(), context)) == {"0": {0, 1}}
    assert sets(plan_in_rounds(Alone(), context, 2, None, Silent())) == {"0": {0, 2}}


def test_refits_on_the_way_are_what_the_next_round_scores() -> None:
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    net = nn.Sequential(first, nn.ReLU(), last).eval()
    with torch.no_grad():
        first.weight.copy_(torch.diag(torch.tensor([1.0, 2, 3, 4]))[:, :3])
        first.weight[3, 2] = 4
        first.bias.zero_()
        last.weight.fill_(1)
    coupling: Coupling = analyse(trace(net, (torch.randn(2, 3),)))

    def refit(alive: Any, sliced: Any) -> Any:
        with torch.no_grad():
            sliced.get_parameter("0.weight")[2] = 0.01  # unit 3 of the original, after unit 0 has gone
        return sliced

    context = Context(coupling, Budget("ratio", 0.5))
    assert sets(plan_in_rounds(Dependency(), context, 2, None, Silent())) == {"0": {0, 1}}
    assert sets(plan_in_rounds(Dependency(), context, 2, refit, Silent())) == {"0": {0, 3}}
    assert np.allclose(first.weight.detach().numpy()[3, 2], 4)
