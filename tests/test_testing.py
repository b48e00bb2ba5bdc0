"""The conformance suite: it passes every method that comes with the package and names what others do wrong."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import PluginError
from compress.plugin import Context, Group, Plan, option
from compress.registry import create, methods
from compress.testing import check_plugin, example_networks
from compress_plugins.adjacency import Adjacency


@dataclass(frozen=True)
class L1:
    """Sum of the magnitudes of a unit's weights."""

    power: float = option(1.0, "exponent of every magnitude")

    def score(self, group: Group, context: Context) -> Tensor:
        """Higher means keep."""
        weights = context.unit_weights(group)
        return torch.stack([w.abs().pow(self.power).sum(1) for w in weights]).sum(0)


class Mixed(nn.Module):
    """Its nodes are mixed by a constant matrix."""

    mix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", (torch.eye(6) + torch.eye(6).roll(1, 1)) / 2)
        self.layer, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.mix @ self.layer(x)).mean(1))
        return out


def test_networks_that_a_method_needs() -> None:
    with pytest.raises(PluginError, match="every network is refused"):
        check_plugin(Adjacency())


@pytest.mark.parametrize("name", [m.name for m in methods() if "compress-nn" in m.distribution])
def test_the_methods_that_come_with_the_package(name: str) -> None:
    before = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    normed = nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    # What the networks of the suite lack: such a matrix, and channels that batch norms alone make
    others: dict[str, list[tuple[str, nn.Module, tuple[Tensor, ...]]]] = {
        "adjacency": [("graph network", Mixed().eval(), (torch.randn(2, 6, 4),))],
        "proximal": [("network of norms", normed.eval(), (torch.randn(2, 3, 8, 8),))],
    }
    check_plugin(create(name, {})[1], others.get(name))


def test_a_criterion_as_the_documentation_shows_it() -> None:
    check_plugin(L1())


@dataclass(frozen=True)
class FirstUnit:
    """Removes the first unit of every group."""

    def plan(self, context: Context) -> Plan:
        return Plan({g.name: np.array([0]) for g in context.groups})


def test_a_plan_that_upsets_the_balance_of_heads() -> None:
    assert [name for name, *_ in example_networks()] == ["mlp", "residual cnn", "attention"]
    with pytest.raises(PluginError, match=r"FirstUnit on the attention \(unit\): the slice of .* is not exact"):
        check_plugin(FirstUnit())


def criterion(score: Any) -> Any:
    """A criterion with that score, right in everything else."""

    @dataclass(frozen=True)
    class Broken:
        """Breaks one rule."""

        def score(self, group: Group, context: Context) -> Any:
            return score(group, context)

    return Broken()


def pruner(plan: Any) -> Any:
    """A pruner with that plan, right in everything else."""

    @dataclass(frozen=True)
    class Broken:
        """Breaks one rule."""

        def plan(self, context: Context) -> Any:
            return plan(context)

    return Broken()


counter = itertools.count()


def changing(group: Group, context: Context) -> Tensor:
    return torch.rand(group.size, generator=torch.Generator().manual_seed(next(counter)))


def writing(group: Group, context: Context) -> Tensor:
    context.unit_weights(group)[0].zero_()  # a copy: harmless
    context.weight(group.members[0].tensor).mul_(0.5)
    return torch.arange(float(group.size))


def failing(group: Group, context: Context) -> Tensor:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda g, c: torch.rand(g.size + 1), r"scores of .* have shape \(\d+,\), need \(\d+,\)"),
        (lambda g, c: torch.ones(g.size, 1), r"scores of .* have shape \(\d+, 1\)"),
        (lambda g, c: torch.full((g.size,), float("nan")), r"scores of .* are not finite"),
        (lambda g, c: torch.full((g.size,), float("inf")), r"scores of .* are not finite"),
        (changing, r"Broken on the mlp \(unit\): the same seed gives two different plans"),
        (writing, r"Broken changed weights of the mlp: "),
        (failing, r"Broken on the mlp \(unit\): Broken failed: KeyError: 'no such thing'"),
        (lambda g, c: None, r"Broken on the mlp \(unit\): Broken failed: "),
    ],
    ids=["length", "shape", "nan", "infinite", "not deterministic", "writes weights", "raises", "none"],
)
def test_scores_that_break_the_contract(score: Any, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check_plugin(criterion(score))


def half_mask(context: Context, **changes: Any) -> dict[str, Tensor]:
    return {n: torch.ones(w.shape, **changes) for n, w in context.layers().items()}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (lambda c: {"a": [1]}, "returned dict, not a Plan"),
        (lambda c: Plan({"nowhere": np.array([0])}), "the plan names an unknown group 'nowhere'"),
        (lambda c: Plan({g.name: np.array([g.size]) for g in c.groups}), "the plan names units that .* does not have"),
        (lambda c: Plan({g.name: np.array([-1]) for g in c.groups}), "the plan names units that .* does not have"),
        (lambda c: Plan({g.name: np.arange(g.size) for g in c.groups}), "the plan leaves nothing of"),
        (lambda c: Plan(masks=half_mask(c, dtype=torch.float32)), "is no bool tensor of the weight's shape"),
        (lambda c: Plan(masks={n: m[:1].bool() for n, m in half_mask(c).items()}), "is no bool tensor"),
    ],
    ids=["no plan", "unknown group", "unit too high", "negative unit", "everything", "float mask", "mask shape"],
)
def test_plans_that_break_the_contract(plan: Any, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check_plugin(pruner(plan))


@dataclass
class Thawed:
    """Not frozen."""

    def score(self, group: Group, context: Context) -> Tensor:
        return torch.ones(group.size)


@dataclass(frozen=True)
class Undocumented:
    def score(self, group: Group, context: Context) -> Tensor:
        return torch.ones(group.size)


@dataclass(frozen=True)
class Unexplained:
    """Its option has no help line."""

    p: float = 2.0

    def score(self, group: Group, context: Context) -> Tensor:
        return torch.ones(group.size)


@dataclass(frozen=True)
class Required:
    """Its option has no default."""

    p: float = field(metadata={"help": "exponent"})

    def score(self, group: Group, context: Context) -> Tensor:
        return torch.ones(group.size)


@dataclass(frozen=True)
class Idle:
    """Neither scores nor plans."""


class Plain:
    """Not a dataclass."""

    def score(self, group: Group, context: Context) -> Tensor:
        return torch.ones(group.size)


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Thawed(), r"Thawed is not frozen: use @dataclass\(frozen=True\)"),
        (Undocumented(), "Undocumented has no docstring for `compress methods`"),
        (Unexplained(), r"option p of Unexplained has no help line: use option\(\)"),
        (Required(p=1.0), "option p of Required has no default"),
        (Idle(), r"Idle offers no score\(\), plan\(\) or start\(\)"),
        (Plain(), "Plain is not a dataclass"),
        (L1, r"check_plugin takes an instance: check_plugin\(MyCriterion\(\)\)"),
    ],
)
def test_classes_that_break_the_contract(plugin: Any, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check_plugin(plugin)
