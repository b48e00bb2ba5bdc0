"""Differentiable sparsification: an exact start, exact zeros that go without a trace, budgets, gates and blocks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.budget import Allocation, Budget
from compress.data import Data
from compress.errors import InputError, ModelError
from compress.graph import analyse, macs, parameters, trace
from compress.plugin import Context
from compress.recover import Hook
from compress.recover.loop import Loop
from compress.recover.modes import Modes
from compress.recover.weights import optimizer
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.blocks import residual_blocks
from compress_plugins.diffsparse import DiffSparse
from compress_plugins.gates import Gates
from compress_plugins.norm_scales import ThresholdedNorms
from compress_plugins.proximal import Proximal
from compress_plugins.shrinking import Part
from compress_plugins.slim import Slim
from compress_plugins.thresholds import l1
from tests.plugins.sparse_networks import SETTINGS, Dense, Residual, coupling, mlp, samples, train

NETWORKS = [(Residual, "batchnorm"), (Dense, "batchnorm"), (mlp, "units"), (Residual, "units"), (Residual, "blocks")]
LONGER = Training(**{**vars(SETTINGS), "epochs": 10})


@pytest.mark.parametrize(
    ("make", "on", "gate"),
    [*((*each, "before") for each in NETWORKS), (mlp, "units", "after"), (Residual, "units", "after")],
)
def test_the_start_computes_what_came(make: Any, on: Any, gate: Any) -> None:
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        given = coupling(make, dtype)
        session = DiffSparse(on=on, gate=gate).start(Context(given))
        x = samples(given).inputs
        with torch.no_grad():
            for got in (session.network, session.fold(session.network)):
                torch.testing.assert_close(got(x), given.program.module(x), rtol=bound, atol=bound)
            # In training as well, where batch norm takes the statistics of the batch
            one, other = Modes(session.network), Modes(given.program.module)
            torch.testing.assert_close(one.train()(x), other.train()(x), rtol=bound, atol=bound)


def test_scales_that_cannot_hold_their_shift() -> None:
    """Zero and tiny scales start with their shift beside them, negative ones inside; then the constants go."""
    given = coupling(Residual, torch.float64)
    network = given.program.module
    scale, shift = network.get_parameter("norm.weight"), network.get_parameter("norm.bias")
    with torch.no_grad():
        scale[:4] = torch.tensor([0.0, 1e-9, -0.5, 1e-3])
        shift[:4] = torch.tensor([0.7, -0.7, 0.3, 0.01])
    session = DiffSparse().start(Context(given))
    x = samples(given).inputs
    with torch.no_grad():
        torch.testing.assert_close(session.network(x), network(x), rtol=1e-12, atol=1e-12)
    assert isinstance(session.parts, ThresholdedNorms)
    inside = session.network.get_buffer("sparse_scale_norm_weight_shift.constant")
    assert inside[:4].tolist() == pytest.approx([0.7, -0.7, 0, 0]) and not inside[4:].any()
    values = session.parts.values(session.network)["norm.weight"]
    assert values[0] == 0 and values[2].item() == pytest.approx(-0.5)
    session.parts.withdraw(session.network, 0.25)
    assert inside[0].item() == pytest.approx(0.7 / 4)
    session.parts.withdraw(session.network, 0.0)
    off = session.fold(session.network)
    assert off.get_parameter("norm.weight")[0] == off.get_parameter("norm.bias")[0] == 0


@pytest.mark.parametrize(("make", "on"), NETWORKS)
def test_what_is_zero_goes_without_a_trace(make: Any, on: Any) -> None:
    """In float64, with zero padding, residual sums, concatenations, and a sigmoid that makes 0.5 of zero."""
    given = coupling(make, torch.float64)
    done = train(DiffSparse(on=on), given)
    assert done.difference() <= 1e-9
    left = sum(p.numel() for p in done.sliced.parameters())
    assert left < 0.75 * parameters(given)
    assert done.session.closed is not None and done.trained.best >= 4


def test_float32() -> None:
    for make in (Residual, Dense):
        assert train(DiffSparse(), coupling(make)).difference() <= 1e-6


def test_a_channel_of_a_stream_goes_when_all_that_write_it_are_zero() -> None:
    given = coupling(Residual, torch.float64)
    session = DiffSparse(lam=0.1).start(Context(given, has_budget=False))
    writers = ["norm.weight", "branches.0.4.weight", "branches.1.4.weight"]
    with torch.no_grad():
        for i, name in enumerate(writers):
            session.network.get_parameter(name)[: 3 - i] = 1e-6  # the last one has one such, the first three
        session.network.get_parameter("branches.0.1.weight")[2] = 1e-6
    zeros = session.parts.zeros(session.parts.values(session.network))
    assert {name: units.tolist() for name, units in zeros.items() if len(units)} == {"stem": [0], "branches.0.0": [2]}
    dead = Context(given).on(session.fold(session.network)).remove_dead()
    assert {name: units.tolist() for name, units in dead.removed.items()} == {"stem": [0], "branches.0.0": [2]}
    assert not dead.carried


def test_norms_that_gates_multiply() -> None:
    """Squeeze and excite: a layer without a norm makes a factor of every channel, and nothing is left of zero."""

    class Squeezed(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.stem(x)))
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            out: torch.Tensor = self.head(self.branches[0](x).mean((2, 3)))
            return out

    done = train(DiffSparse(), coupling(Squeezed, torch.float64))
    assert len(done.plan.removed["stem"]) > 0 and done.difference() <= 1e-9


@pytest.mark.parametrize(("kind", "size"), [("ratio", None), ("macs", macs)])
def test_a_budget_is_met(kind: Any, size: Any) -> None:
    given = coupling(lambda: Residual(24, 12))
    done = train(DiffSparse(), given, LONGER, budget=Budget(kind, 0.5))
    alive = done.after.alive(done.plan.removed)
    if size is None:
        total = sum(group.size for group in given.groups)
        reached = 1 - sum(len(units) for units in done.plan.removed.values()) / total
    else:
        reached = size(given, alive) / size(given)
    assert 0.46 <= reached <= 0.5 + 1e-9
    ranks = [note["closed by rank"] for note in done.plan.notes.values()]
    exact = [note["zero by training"] for note in done.plan.notes.values()]
    assert sum(exact) > sum(ranks)
    assert [f.name for f in done.plan.figures] == ["scales", "channels-left"]
    last = done.trained.history[-1]
    assert last["channels zero"] <= last["channels below 1e-4"] and last["lambda"] == 0


def test_a_budget_that_takes_nothing() -> None:
    done = train(DiffSparse(), coupling(Residual), budget=Budget("params", 10**6))
    assert done.plan.empty and all(entry["lambda"] == 0 for entry in done.trained.history)


def test_widths_that_are_rounded() -> None:
    done = train(DiffSparse(), coupling(lambda: Residual(24, 12)), allocation=Allocation(round_to=4))
    assert all((24 - len(done.plan.removed[n])) % 4 == 0 for n in ("stem",))
    with pytest.raises(InputError, match="widths follow the zeros"):
        train(DiffSparse(lam=0.1), coupling(Residual), budget=None, allocation=Allocation(round_to=4))


def test_lambda_alone_decides_where_no_budget_is_given() -> None:
    done = train(DiffSparse(lam=0.1), coupling(Residual, torch.float64), LONGER, budget=None)
    history = done.trained.history
    assert [entry["lambda"] for entry in history] == [0.1] * 10 + [0.0]
    assert done.trained.best == 10 and done.difference() <= 1e-9
    zeros = history[-1]["channels zero"]
    assert 0 < zeros == sum(note["zero by training"] for note in done.plan.notes.values())
    assert not any(note["closed by rank"] for note in done.plan.notes.values())


def test_a_share_goes_where_nothing_is_said() -> None:
    done = train(DiffSparse(keep=0.6), coupling(mlp), budget=None)
    assert done.session.closed is not None
    assert sum(len(units) for units in done.session.closed.values()) == 13  # of 20 + 12, rounded up


class Squashed(nn.Module):
    """A sigmoid, which makes 0.5 of zero, in front of a convolution, and a ReLU behind it."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.two, self.other = nn.Conv2d(10, 8, 3, padding=padding), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.norm(self.one(x)))
        out: Tensor = self.head(torch.relu(self.other(self.two(x))).mean((2, 3)))
        return out


class LastStep(Hook):
    """The network when all steps are done."""

    def after_step(self, loop: Loop) -> None:
        self.network = copy.deepcopy(loop.network).eval()


@pytest.mark.parametrize("padding", [0, 1])
def test_zeros_at_the_end_go_with_their_constants_or_not_at_all(padding: int) -> None:
    """Under a lambda alone no step follows that could make up for anything, and in front of padding 0.5 stays."""
    last = LastStep()
    done = train(DiffSparse(lam=0.1), coupling(lambda: Squashed(padding), torch.float64), LONGER, last, budget=None)
    closed = done.session.closed
    assert closed is not None and all(len(closed[name]) >= 3 for name in ("one", "two"))
    x = torch.randn(7, 1, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        trained = last.network(x)
        torch.testing.assert_close(done.trained.module(x), trained, rtol=0, atol=1e-12)
        torch.testing.assert_close(done.sliced(x), trained, rtol=0, atol=1e-9)
    left = [len(done.sliced.get_parameter(f"{name}.weight")) for name in ("one", "two")]
    assert left == [10 if padding else 10 - len(closed["one"]), 8 - len(closed["two"])]


@pytest.mark.parametrize("regulariser", ["lp", "l21", "l12"])
def test_other_norms(regulariser: Any) -> None:
    done = train(DiffSparse(regulariser=regulariser), coupling(Residual, torch.float64), LONGER)
    assert done.difference() <= 1e-9 and sum(done.session.exact.values()) > 0


def test_blocks_go_physically() -> None:
    given = coupling(Residual, torch.float64)
    assert [(b.total[:3], b.parameters) for b in residual_blocks(given.program.module)] == [
        ("add", 438 + 440 + 12 + 16)
    ] * 2
    done = train(DiffSparse(on="blocks", lam=1.0), given)
    convolutions = [n for n in done.sliced.graph.nodes if "conv2d" in str(n.target)]
    assert len(convolutions) == 3 and done.difference() <= 1e-9
    with pytest.raises(InputError, match="--macs: blocks are counted by number or parameters"):
        train(DiffSparse(on="blocks"), given, budget=Budget("macs", 0.5))
    with pytest.raises(ModelError, match="0 residual branches"):
        train(DiffSparse(on="blocks"), coupling(mlp))


def test_units_that_are_small_go_first_as_all_gates_are_equal_at_first() -> None:
    given = coupling(mlp)
    small = {"0": [1, 7, 12, 19], "2": [0, 5, 9]}
    with torch.no_grad():
        for name, units in small.items():
            for part in ("weight", "bias"):
                given.program.module.get_parameter(f"{name}.{part}")[units] *= 0.01
            given.program.module.get_parameter(f"{int(name) + 2}.weight")[:, units] *= 0.01
    session = DiffSparse(on="units").start(Context(given, Budget("ratio", 7 / 32)))
    assert {name: units.tolist() for name, units in session.wanted.items()} == small


@pytest.mark.parametrize("weak", [0, 1])
def test_the_block_that_adds_least_goes_first(weak: int) -> None:
    given = coupling(Residual)
    with torch.no_grad():
        for name in ("weight", "bias"):
            given.program.module.get_parameter(f"branches.{weak}.4.{name}").mul_(0.1)
    data = Data("drawn", samples(given), samples(given), 3)
    session = DiffSparse(on="blocks").start(Context(given, Budget("ratio", 0.5), data=data))
    assert session.wanted["blocks"].tolist() == [weak]


def test_one_epoch_trains_what_is_left() -> None:
    given = coupling(mlp)
    for epochs, closed in ((1, 1), (2, 1), (3, 2), (8, 6)):
        done = train(DiffSparse(), given, budget=Budget("ratio", 0.5), settings=replace(SETTINGS, epochs=epochs))
        found = [entry["epoch"] for entry in done.trained.history if entry["units zero"] >= 16]
        assert found[0] == closed


@pytest.mark.parametrize(("gate", "acts"), [("before", False), ("after", True)])
def test_where_the_rectified_gradient_acts(gate: Any, acts: bool) -> None:
    """In front of a ReLU a gate that is zero has no gradient, rectified or not."""
    given = coupling(lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)), torch.float64)
    found = []
    for rectified in (False, True):
        session = DiffSparse(on="units", gate=gate, rectified=rectified).start(Context(given))
        alpha = session.network.get_parameter("sparse_gates.alpha")
        with torch.no_grad():
            alpha[2] = 1e-3
        data = samples(given)
        nn.functional.cross_entropy(session.network(data.inputs), data.targets).backward()
        assert alpha.grad is not None and session.parts.values(session.network)["0.weight"][2] == 0
        found.append(float(alpha.grad[2]))
    assert (abs(found[1] - found[0]) > 1e-3) == acts


def test_thresholds_do_not_decay() -> None:
    session = DiffSparse().start(Context(coupling(Residual)))
    settings = Training(**{**vars(SETTINGS), "weight_decay": 0.1})
    made = optimizer(session.network, settings)
    before = {n: p.detach().clone() for n, p in session.network.named_parameters()}
    for _ in range(1000):
        for parameter in session.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.step()
    after = {n: p.detach() for n, p in session.network.named_parameters()}
    assert torch.equal(after["norm.weight"], before["norm.weight"]), "alpha"
    assert torch.equal(after["sparse_scale_norm_weight.beta"], before["sparse_scale_norm_weight.beta"])
    assert float(after["stem.weight"].abs().sum()) < 0.1 * float(before["stem.weight"].abs().sum())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lam": 0.0}, "lam: must be above 0"),
        ({"p": 1.0}, "p: must be above 0 and below 1"),
        ({"settle": 1.0}, "settle: must be from 0 to below 1"),
        ({"keep": 0.0}, "keep: must be above 0 and below 1"),
        ({"gate": "after", "on": "blocks"}, "gate: says where gates on units stand"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DiffSparse(**options)


def test_networks_that_are_refused() -> None:
    with pytest.raises(ModelError, match="no units can be switched off by the scales of batch norms"):
        DiffSparse(on="batchnorm").start(Context(coupling(mlp)))
    with pytest.raises(InputError, match="--only and --exclude choose layers"):
        DiffSparse(on="blocks").start(Context(coupling(Residual), exclude=("stem",)))


def test_the_contract() -> None:
    check_plugin(DiffSparse())


def test_what_a_step_makes_once_has_the_gradients_of_both_uses() -> None:
    torch.manual_seed(0)
    gates = Gates([Part((6,), (0,)), Part((3, 1, 1), (0, 1, 2))], False, torch.zeros(1, dtype=torch.float64))
    x, factors = torch.randn(4, 6, dtype=torch.float64), torch.linspace(-1, 2, 9, dtype=torch.float64)
    with torch.no_grad():
        gates.alpha.mul_(factors)
    found = []
    for once in (True, False):
        values = gates.prepare()[0] if once else [each.view(-1) for each in gates()]
        assert bool(gates.prepared) == once
        rows, maps = gates()
        assert not gates.prepared  # the next pass makes its own
        assert maps.shape == (3, 1, 1) and [len(each) for each in values] == [6, 3]
        loss = (x * rows).square().sum() + maps.square().sum() + l1(torch.cat(values))
        found.append(torch.autograd.grad(loss, (gates.alpha, gates.beta)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


class Half(nn.Module):
    """One of its two layers has a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(10, 20), nn.BatchNorm1d(20), nn.Linear(20, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))
        return out


@pytest.mark.parametrize("method", [DiffSparse(keep=0.6), Slim(keep=0.6), Proximal(keep=0.6)])
def test_a_share_is_of_the_units_that_have_scales(method: Any) -> None:
    torch.manual_seed(0)
    given = analyse(trace(Half().eval(), (torch.randn(2, 10),)))
    done = train(method, given, budget=None)
    assert {name: len(units) for name, units in done.plan.removed.items()} == {"first": 8}
