"""A conformance suite for plugins: what every method, built in or not, has to get right.

Use it in a plugin's own tests::

    from compress.testing import check_plugin
    check_plugin(MyCriterion())
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.data import Split
from compress.errors import CompressError, ModelError, PluginError
from compress.graph import Coupling, analyse, empty_pieces, remove_dead, slice_verified, trace
from compress.graph.verify import TOLERANCE
from compress.plan import Plan
from compress.plugin import Context, Criterion, Pruner, Retrain, granularities, make_plan
from compress.recover import Hook, InSession, StateFile, finetune
from compress.recover.loop import Loop
from compress.retrain import folded, plan_of, start_session
from compress.training import Training

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


def check_plugin(plugin: Any, networks: Iterable[tuple[str, nn.Module, tuple[Tensor, ...]]] | None = None) -> None:
    """Run a criterion, pruner or retrain method through the contract.

    Checked on three networks, or on those that are given, at all granularities that the method has: it is a frozen
    dataclass whose options have defaults and a help line; it changes no weight; the same seed gives the same plan;
    scores have the right shape and are finite; plans name known groups and units and leave every group a unit; the
    slice equals the masked original in float64. A method may refuse networks that lack what it needs, with a
    ModelError, but not all of them. Of a retrain method, which is trained for 4 epochs, also that what it folds
    computes what was trained, and that a training that is cut off and goes on ends as one that is not.

    Args:
        plugin: An instance.
        networks: Names, modules and example inputs, as `example_networks` has them, for a method that needs others.

    Raises:
        PluginError: The first requirement that is not met, and where.
    """
    _check_shape(plugin)
    refusals = []
    chosen = list(example_networks() if networks is None else networks)
    for name, module, inputs in chosen:
        coupling = analyse(trace(module, inputs))
        before = {k: v.clone() for k, v in module.state_dict().items()}
        for granularity in granularities(plugin):
            where = f"{type(plugin).__name__} on the {name} ({granularity})"
            context = Context(coupling, Budget("ratio", 0.4), granularity, seed=3, data=_samples(inputs[0], module))
            check = _check_retrain if isinstance(plugin, Retrain) else _check_plan
            try:
                check(plugin, context, where)
            except ModelError as error:
                refusals.append(f"{where}: {error}")
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[k])]
        _require(not changed, f"{type(plugin).__name__} changed weights of the {name}: {', '.join(changed[:3])}")
    every = len(refusals) == len(chosen) * len(granularities(plugin))
    _require(not every, f"every network is refused. {'; '.join(refusals[:1])}")


@dataclasses.dataclass(frozen=True)
class _Data:
    train: Split


def _samples(example: Tensor, module: nn.Module) -> _Data:
    """Random samples for methods that look at data, with random classes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        classes = module(example).shape[1]
    inputs = torch.randn(48, *example.shape[1:], generator=generator)
    return _Data(Split(inputs, torch.randint(classes, (48,), generator=generator)))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PluginError(message)


def _check_shape(plugin: Any) -> None:
    _require(not isinstance(plugin, type), "check_plugin takes an instance: check_plugin(MyCriterion())")
    name = type(plugin).__name__
    _require(dataclasses.is_dataclass(plugin), f"{name} is not a dataclass")
    _require(type(plugin).__dataclass_params__.frozen, f"{name} is not frozen: use @dataclass(frozen=True)")
    _require(isinstance(plugin, (Criterion, Pruner, Retrain)), f"{name} offers no score(), plan() or start()")
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
    _require(_same(plan, again), f"{where}: the same seed gives two different plans")
    _check_cut(plan, context, where)


def _same(one: Plan, other: Plan) -> bool:
    units = one.removed.keys() == other.removed.keys() and all(
        list(one.removed[n]) == list(other.removed[n]) for n in one.removed
    )
    return units and all(torch.equal(one.masks[n], other.masks[n]) for n in one.masks)


def _check_cut(plan: Plan, context: Context, where: str) -> None:
    _check_removed(plan, context.coupling, where)
    for name, mask in plan.masks.items():
        fits = mask.dtype == torch.bool and mask.shape == context.weight(name).shape
        _require(fits, f"{where}: the mask of {name} is no bool tensor of the weight's shape")
    if plan.masks:
        error = remove_dead(context.coupling, plan.masks).verification.error
        _require(error <= TOLERANCE, f"{where}: without its dead units the masked network is off by {error:.1e}")
    found = slice_verified(context.coupling, plan.removed)
    _require(not found.rolled_back, f"{where}: the slice of {', '.join(found.rolled_back)} is not exact")


def _check_retrain(plugin: Retrain, context: Context, where: str) -> None:
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = StateFile(Path(folder), {}, every=1)
            plan, after = _retrained(plugin, context)
            _retrained(plugin, context, _Cut(), file)
            again, resumed = _retrained(plugin, context, Hook(), file)
    except ModelError:
        raise
    except CompressError as error:
        raise PluginError(f"{where}: {error}") from error
    tensors = dict(resumed.module.named_parameters())
    same = all(torch.equal(tensor, tensors[name]) for name, tensor in after.module.named_parameters())
    _require(same and _same(plan, again), f"{where}: a training that was cut off and went on ends otherwise")
    _check_cut(plan, after, where)
    if plan.masks:
        passed = remove_dead(after.coupling, plan.masks).verification.passed
        _require(passed, f"{where}: the network without its dead units is not the masked one")


class _CutOffError(Exception):
    """The machine is gone."""


class _Cut(Hook):
    def after_step(self, loop: Loop) -> None:
        if loop.step == 8:  # in the third epoch of four, when its first step of three has been saved
            raise _CutOffError


def _retrained(
    plugin: Retrain, context: Context, other: Hook | None = None, file: StateFile | None = None
) -> tuple[Plan, Context]:
    """A short training: the plan and the trained network; as they are without a training where it is cut off."""
    session = start_session(plugin, context)
    hooks = (InSession(session),) if other is None else (InSession(session), other)
    settings = Training(epochs=4, batch_size=16, lr=0.01)
    resume = file is not None and file.exists
    try:
        trained = finetune(
            session.network, context.data.train, settings, seed=context.seed, hooks=hooks, file=file, resume=resume
        )
    except _CutOffError:
        return Plan(), context
    program = folded(session, trained.module, context.coupling.program)
    after = dataclasses.replace(context, coupling=analyse(program))
    return plan_of(session, after), after


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
    emptied = empty_pieces(coupling, coupling.alive(plan.removed)) & set(plan.removed)
    _require(not emptied, f"{where}: the plan leaves nothing of {', '.join(sorted(emptied))}")
