"""A conformance suite for plugins: what every method, built in or not, has to get right.

Use it in a plugin's own tests::

    from compress.testing import check_plugin
    check_plugin(MyCriterion())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.errors import CompressError, ModelError, PluginError
from compress.graph import Coupling, analyse, remove_dead, slice_verified, trace
from compress.graph.verify import TOLERANCE
from compress.plan import Plan
from compress.plugin import Context, Criterion, Pruner, granularities, make_plan

__all__ = ["check_plugin", "example_networks"]


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, 16))
        out: Tensor = self.head(x.mean(1))
        return out


def example_networks() -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...]]]:
    """Three small untrained networks (an MLP, a residual CNN, an attention block) with example inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5))
        yield "mlp", mlp.eval(), (torch.randn(2, 12),)
        yield "residual cnn", _Residual().eval(), (torch.randn(2, 3, 8, 8),)
        yield "attention", _Attention().eval(), (torch.randn(2, 5, 6),)


def check_plugin(plugin: Any) -> None:
    """Run a criterion or pruner through the contract.

    Checked on three networks, at all granularities that the method has: it is a frozen dataclass whose options
    have defaults and a help line; it changes no weight; the same seed gives the same plan; scores have the right shape
    and are finite; plans name known groups and units and leave every group a unit; the slice equals the masked
    original in float64. A method may refuse networks that lack what it needs, with a ModelError, but not all three.

    Raises:
        PluginError: The first requirement that is not met, and where.
    """
    _check_shape(plugin)
    refusals = []
    for name, module, inputs in example_networks():
        coupling = analyse(trace(module, inputs))
        before = {k: v.clone() for k, v in module.state_dict().items()}
        for granularity in granularities(plugin):
            where = f"{type(plugin).__name__} on the {name} ({granularity})"
            context = Context(coupling, Budget("ratio", 0.4), granularity, seed=3, data=_samples(inputs[0], module))
            try:
                _check_plan(plugin, context, where)
            except ModelError as error:
                refusals.append(f"{where}: {error}")
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[k])]
        _require(not changed, f"{type(plugin).__name__} changed weights of the {name}: {', '.join(changed[:3])}")
    _require(len(refusals) < 3 * len(granularities(plugin)), f"every network is refused. {'; '.join(refusals[:1])}")


@dataclasses.dataclass(frozen=True)
class _Samples:
    inputs: Tensor
    targets: Tensor


@dataclasses.dataclass(frozen=True)
class _Data:
    train: _Samples


def _samples(example: Tensor, module: nn.Module) -> _Data:
    """Random samples for methods that look at data, with random classes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        classes = module(example).shape[1]
    inputs = torch.randn(48, *example.shape[1:], generator=generator)
    return _Data(_Samples(inputs, torch.randint(classes, (48,), generator=generator)))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PluginError(message)


def _check_shape(plugin: Any) -> None:
    _require(not isinstance(plugin, type), "check_plugin takes an instance: check_plugin(MyCriterion())")
    name = type(plugin).__name__
    _require(dataclasses.is_dataclass(plugin), f"{name} is not a dataclass")
    _require(type(plugin).__dataclass_params__.frozen, f"{name} is not frozen: use @dataclass(frozen=True)")
    _require(isinstance(plugin, (Criterion, Pruner)), f"{name} offers neither score() nor plan()")
    doc = (type(plugin).__doc__ or "").strip()
    # A dataclass without a docstring gets its signature as one
    _require(bool(doc) and not doc.startswith(f"{name}("), f"{name} has no docstring for `compress methods`")
    for field in dataclasses.fields(plugin):
        default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        _require(default, f"option {field.name} of {name} has no default")
        _require(bool(field.metadata.get("help")), f"option {field.name} of {name} has no help line: use option()")


def _check_plan(plugin: Criterion | Pruner, context: Context, where: str) -> None:
    plan = _made(plugin, context, where)
    again = _made(plugin, context, where)
    same = plan.removed.keys() == again.removed.keys() and all(
        list(plan.removed[n]) == list(again.removed[n]) for n in plan.removed
    )
    same = same and all(torch.equal(plan.masks[n], again.masks[n]) for n in plan.masks)
    _require(same, f"{where}: the same seed gives two different plans")
    _check_removed(plan, context.coupling, where)
    for name, mask in plan.masks.items():
        fits = mask.dtype == torch.bool and mask.shape == context.weight(name).shape
        _require(fits, f"{where}: the mask of {name} is no bool tensor of the weight's shape")
    if plan.masks:
        error = remove_dead(context.coupling, plan.masks).verification.error
        _require(error <= TOLERANCE, f"{where}: without its dead units the masked network is off by {error:.1e}")
    found = slice_verified(context.coupling, plan.removed)
    _require(not found.rolled_back, f"{where}: the slice of {', '.join(found.rolled_back)} is not exact")


def _made(plugin: Criterion | Pruner, context: Context, where: str) -> Plan:
    try:
        return make_plan(plugin, context)
    except ModelError:
        raise
    except CompressError as error:
        raise PluginError(f"{where}: {error}") from error


def _check_removed(plan: Plan, coupling: Coupling, where: str) -> None:
    sizes = {g.name: g.size for g in coupling.groups}
    for name, units in plan.removed.items():
        _require(name in sizes, f"{where}: the plan names an unknown group {name!r}")
        inside = all(0 <= int(u) < sizes[name] for u in units)
        _require(inside, f"{where}: the plan names units that {name} does not have")
        _require(len(set(map(int, units))) < sizes[name], f"{where}: the plan leaves nothing of {name}")
