from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError, PluginError
from compress.graph import analyse, trace
from compress.plugin import Budget, Context, Criterion, Group, Plan, Pruner, make_plan, option


@pytest.fixture(scope="module")
def context() -> Context:
    """3-4-2: rows 1 to 4 of the first weight are constant, the second weight is 10, 20, 30, 40 by column."""
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():
        first.weight.copy_(torch.arange(1.0, 5.0)[:, None].expand(4, 3))
        first.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        second.weight.copy_(10 * torch.arange(1.0, 5.0).expand(2, 4))
    module = nn.Sequential(first, nn.BatchNorm1d(4), nn.ReLU(), second).eval()
    return Context(analyse(trace(module, (torch.randn(2, 3),))), Budget("ratio", 0.5))


@dataclass(frozen=True)
class Fixed:
    """Gives the scores that it is told."""

    scores: Any

    def score(self, group: Group, context: Context) -> Tensor:
        return self.scores


@dataclass(frozen=True)
class Planner:
    """Gives the plan that it is told."""

    result: Any

    def plan(self, context: Context) -> Plan:
        return self.result


def test_option_carries_its_help() -> None:
    @dataclass(frozen=True)
    class Method:
        power: float = option(2.0, "exponent")

    (found,) = dataclasses.fields(Method)
    assert (found.default, found.metadata["help"]) == (2.0, "exponent")


def test_unit_weights_are_parameters_by_unit_the_own_layer_first(context: Context) -> None:
    weights = context.unit_weights(context.groups[0])
    assert sorted(tuple(w.shape) for w in weights) == [(4, 1), (4, 1), (4, 1), (4, 2), (4, 3)]
    assert weights[0].tolist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3, [4.0] * 3]
    assert any(w.tolist() == [[10.0] * 2, [20.0] * 2, [30.0] * 2, [40.0] * 2] for w in weights)
    assert not any(w.requires_grad for w in weights)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_unit_mass_is_that_of_the_unit_weights(context: Context, p: float) -> None:
    group = context.groups[0]
    expected = [w.double().abs().pow(p).sum(1).tolist() for w in context.unit_weights(group)]
    found = [m.tolist() for m in context.unit_mass(group, p)]
    assert found == [pytest.approx(e) for e in expected]


def test_layers_and_weights_by_name(context: Context) -> None:
    assert list(context.layers()) == ["0.weight", "3.weight"]
    assert context.weight("0.bias").tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert context.generator().initial_seed() == context.seed


def test_criterion_becomes_a_plan(context: Context) -> None:
    plan = make_plan(Fixed(torch.tensor([3.0, 1.0, 4.0, 2.0])), context)
    assert {n: u.tolist() for n, u in plan.removed.items()} == {"0": [1, 3]}


@pytest.mark.parametrize(
    ("scores", "match"),
    [
        (torch.ones(3), r"scores of 0 have shape \(3,\), need \(4,\)"),
        (torch.tensor([1.0, float("nan"), 1, 1]), "scores of 0 are not finite"),
    ],
)
def test_bad_scores_name_the_group(context: Context, scores: Any, match: str) -> None:
    with pytest.raises(PluginError, match=match):
        make_plan(Fixed(scores), context)


def test_missing_scores(context: Context) -> None:
    with pytest.raises(PluginError, match="no scores for group 0"):
        context.plan_from_scores({})


def test_pruner_must_return_a_plan(context: Context) -> None:
    plan = Plan({"0": np.array([0])})
    assert make_plan(Planner(plan), context) is plan
    with pytest.raises(PluginError, match=r"Planner\.plan returned dict, not a Plan"):
        make_plan(Planner({}), context)


def test_what_is_neither(context: Context) -> None:
    with pytest.raises(PluginError, match=r"offers neither score\(\) nor plan\(\)"):
        make_plan(object(), context)  # type: ignore[arg-type]
    assert isinstance(Fixed(0), Criterion)
    assert isinstance(Planner(0), Pruner)


def test_criterion_has_no_meaning_for_single_weights(context: Context) -> None:
    with pytest.raises(ModelError, match="no meaning for single weights"):
        make_plan(Fixed(torch.ones(4)), dataclasses.replace(context, granularity="weight"))


def test_masks_become_units_by_share_and_surviving_mass(context: Context) -> None:
    """Half of the first weight survives, all of it in units 0 and 3."""
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[[0, 3]] = True
    plan = context.plan_from_masks({"0.weight": mask}, {"0.weight": {"rule": "min"}})
    assert {n: u.tolist() for n, u in plan.removed.items()} == {"0": [1, 2]}
    assert plan.masks == {}
    assert plan.notes == {"0.weight": {"rule": "min", "share of weights": 0.5}}


def test_masks_stay_masks_by_weight(context: Context) -> None:
    mask = torch.ones(4, 3, dtype=torch.bool)
    plan = dataclasses.replace(context, granularity="weight").plan_from_masks({"0.weight": mask})
    assert plan.masks["0.weight"] is mask
    assert plan.removed == {}


@pytest.mark.parametrize("mask", [torch.ones(3, 4, dtype=torch.bool), torch.ones(4, 3)])
def test_masks_of_another_shape_or_type(context: Context, mask: Tensor) -> None:
    with pytest.raises(PluginError, match=r"mask of 0\.weight must be a bool tensor of shape \(4, 3\)"):
        context.plan_from_masks({"0.weight": mask})
