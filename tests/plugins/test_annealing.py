"""Annealed pruning: how many weights stay when, that masked ones stay zero, and what is sliced in the end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.data import Split
from compress.errors import InputError, ModelError
from compress.figures import Figure
from compress.graph import Coupling, analyse, parameters, remove_dead, slice_verified, trace
from compress.plan import Plan
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.retrain import folded, plan_of, start_session
from compress.schedules import annealed
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.annealing import Annealed, Annealing
from compress_plugins.ranking import Ranking

# Momentum and weight decay move a weight whose gradient is zero
SGD = Training(epochs=6, batch_size=20, lr=0.05, momentum=0.9, weight_decay=0.1, warmup=0, patience=0)


def mlp(seed: int = 0) -> Coupling:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))
    return analyse(trace(module.eval(), (torch.randn(2, 10),)))


def residual() -> Coupling:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 3)
            self.inner, self.outer = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.stem(x)))
            out: Tensor = self.head((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))
            return out

    return analyse(trace(Net().eval(), (torch.randn(2, 1, 5, 5),)))


def samples(coupling: Coupling) -> Split:
    torch.manual_seed(1)
    x = torch.randn(100, *coupling.program.inputs[0].shape[1:])
    return Split(x, x.flatten(1)[:, :3].argmax(1))


class Eyes(Hook):
    """The network after every step and epoch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.epochs: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def before_step(self, loop: Loop) -> None:
        self.rates.append(loop.optimizer.param_groups[0]["lr"])

    def after_step(self, loop: Loop) -> None:
        self.steps.append({n: p.detach().clone() for n, p in loop.network.named_parameters()})

    def after_epoch(self, loop: Loop) -> None:
        self.epochs.append({n: p.detach().clone() for n, p in loop.network.named_parameters()})


class Done:
    """A training with annealing and what came of it."""

    def __init__(
        self, method: Annealing, coupling: Coupling, settings: Training = SGD, hook: Hook | None = None, **context: Any
    ) -> None:
        given: dict[str, Any] = {"granularity": "weight", "has_budget": False, "data": None} | context
        self.context, self.eyes = Context(coupling, **given), Eyes()
        session = start_session(method, self.context)
        assert isinstance(session, Annealed)
        self.session = session
        hooks = [InSession(session), self.eyes, *([hook] if hook else [])]
        self.trained = finetune(session.network, samples(coupling), settings, hooks=hooks)
        program = folded(session, self.trained.module, coupling.program)
        self.after = analyse(program)
        self.plan: Plan = plan_of(session, Context(self.after, **given))

    def zeros(self, name: str) -> list[int]:
        return [int((epoch[name] == 0).sum()) for epoch in self.eyes.epochs]


def test_how_many_stay_and_where() -> None:
    done = Done(Annealing(keep=0.3), mlp())
    for name, size in (("2.weight", 240), ("4.weight", 36)):
        expected = [size - annealed(i, 6, size, int(0.3 * size), 10) for i in range(1, 7)]
        assert done.zeros(name) == expected and expected[2:] == [size - int(0.3 * size)] * 4
    assert done.zeros("0.weight") == [0] * 6 and not any(done.zeros(f"{i}.bias")[-1] for i in (0, 2, 4))
    kept = [entry["kept weights"] for entry in done.trained.history]
    assert kept == [276, *(276 - a - b for a, b in zip(done.zeros("2.weight"), done.zeros("4.weight"), strict=True))]
    nonzero = [entry["nonzero"] for entry in done.trained.history]
    assert nonzero == [n + 220 + 15 for n in kept]  # the first layer's weights and biases, other biases
    (figure,) = done.plan.figures
    assert isinstance(figure, Figure)
    assert list(figure.series[0].x) == list(range(7)) and list(figure.series[0].y) == nonzero


def test_the_smallest_go_and_never_return() -> None:
    """Exactly zero after every step, under momentum and weight decay; what is not masked is trained."""
    done = Done(Annealing(keep=0.4), mlp())
    start = {n: p.detach() for n, p in mlp().program.module.named_parameters()}
    per_epoch = len(done.eyes.steps) // 6
    for name in ("2.weight", "4.weight"):
        before = done.eyes.steps[per_epoch - 1][name]
        masked = done.eyes.epochs[0][name] == 0
        assert before[masked].abs().max() < before[~masked].abs().min()
        for i, epoch in enumerate(done.eyes.epochs[:-1]):
            gone = epoch[name] == 0
            for step in done.eyes.steps[(i + 1) * per_epoch : (i + 2) * per_epoch]:
                assert not step[name][gone].any()
        alive = done.eyes.epochs[0][name] != 0
        assert bool((done.eyes.epochs[0][name][alive] != start[name][alive]).all())


def test_the_best_epoch_is_one_with_all_masks() -> None:
    """The network as it came is better than any that is masked."""
    coupling = mlp()
    good = finetune(coupling.program.module, samples(coupling), Training(epochs=30, batch_size=20, lr=0.1)).module
    coupling = analyse(trace(good, coupling.program.inputs))
    done = Done(Annealing(keep=0.05), coupling)
    accuracy = [entry["validation accuracy"] for entry in done.trained.history]
    assert accuracy[0] > max(accuracy[3:]) and done.trained.best >= 3
    assert int((done.trained.module.get_parameter("2.weight") != 0).sum()) == 12


def test_all_layers_together() -> None:
    done = Done(Annealing(keep=0.1, scope="all"), mlp())
    weights = [done.trained.module.get_parameter(n) for n in ("2.weight", "4.weight")]
    left = [int((w != 0).sum()) for w in weights]
    assert sum(left) == 27 and left != [24, 3] and min(left) >= 1
    with_first = Done(Annealing(keep=0.1, scope="all", first_layer=True), mlp())
    assert sum(int((p != 0).sum()) for p in with_first.trained.module.parameters() if p.dim() == 2) == 47


def test_every_step() -> None:
    done = Done(Annealing(keep=0.3, every="step"), mlp())
    found = [int((step["2.weight"] != 0).sum()) for step in done.eyes.steps]
    total = len(found)
    assert found == [annealed(i, total, 240, 72, 10) for i in range(1, total + 1)] and total == 30


def test_before_the_training() -> None:
    done = Done(Annealing(keep=0.3, variant="before"), mlp())
    start = mlp().program.module.get_parameter("2.weight").detach()
    kept = Ranking().largest(start.abs().flatten(), 72).reshape(12, 20)
    assert all(torch.equal(step["2.weight"] != 0, kept) for step in done.eyes.steps)
    assert done.trained.history[0]["kept weights"] == 82


def test_from_scratch() -> None:
    """The first half finds the masks, the second trains other weights under them, with a schedule of its own."""
    done = Done(Annealing(keep=0.3, variant="scratch"), mlp(), Training(epochs=8, batch_size=20, warmup=0.2, lr=0.1))
    found, anew, last = (done.eyes.epochs[i]["2.weight"] for i in (2, 3, 7))
    assert torch.equal(found != 0, last != 0) and int((last != 0).sum()) == 72
    bound = 1 / 20**0.5
    assert float(anew.abs().max()) <= bound and not torch.allclose(found, anew, atol=0.05)
    assert done.trained.best > 4
    # Both halves rise and fall alike
    first, second = done.eyes.rates[:20], done.eyes.rates[20:]
    assert first == second and first[0] < max(first) and first[-1] < 0.1 * max(first)
    with pytest.raises(InputError, match="one epoch to find the masks and one to train"):
        Done(Annealing(variant="scratch"), mlp(), Training(epochs=1))


def test_units_by_a_criterion() -> None:
    done = Done(Annealing(keep=0.5, unit_method="dependency"), residual(), granularity="unit")
    left = [entry["kept units"] for entry in done.trained.history]
    assert left[0] == 14 and left[3:] == [7] * 4 and left == sorted(left, reverse=True) and left[1] < 14
    assert {n: len(u) for n, u in done.plan.removed.items()} == {"stem": 4, "inner": 3}
    # The masked network is the sliced one, batch norm included
    sliced = slice_verified(done.after, done.plan.removed)
    x = torch.randn(4, 1, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(sliced.module(x), done.trained.module(x))
    as_masks = Done(Annealing(keep=0.5, unit_method="dependency"), residual())
    dead = remove_dead(as_masks.after, as_masks.plan.masks)
    assert {n: len(u) for n, u in dead.removed.items()} == {"stem": 4, "inner": 3}


def test_units_that_are_masked_do_not_return() -> None:
    done = Done(Annealing(keep=0.25, unit_method="random", every="step"), mlp(), granularity="unit")
    alive = [(step["2.weight"] != 0).any(0) for step in done.eyes.steps]
    assert all(bool((later <= earlier).all()) for earlier, later in itertools.pairwise(alive))
    assert int(alive[-1].sum()) == 5


@pytest.mark.parametrize("unit_method", [None, "dependency"])
def test_a_budget_decides(unit_method: str | None) -> None:
    coupling = mlp()
    budget = Budget("params", 0.5)
    done = Done(Annealing(unit_method=unit_method), coupling, granularity="unit", budget=budget, has_budget=True)
    left = parameters(done.after, done.after.alive(done.plan.removed))
    assert 0.4 * parameters(coupling) < left <= 0.5 * parameters(coupling)
    nonzero = done.trained.history[-1]["nonzero"]
    assert nonzero < 0.8 * parameters(coupling)


@pytest.mark.parametrize("budget", [Budget("ratio", 0.7), Budget("params", 0.5)])
def test_a_budget_of_zeros_counts_zeros(budget: Budget) -> None:
    done = Done(Annealing(), mlp(), budget=budget, has_budget=True)
    masks = done.plan.masks
    assert masks and "0.weight" not in masks
    gone = sum(int((~mask).sum()) for mask in masks.values())
    if budget.kind == "ratio":
        assert gone == pytest.approx(0.7 * sum(mask.numel() for mask in masks.values()), abs=len(masks))
    else:
        whole = sum(p.numel() for p in done.after.program.module.parameters())
        assert whole - gone == pytest.approx(0.5 * whole, abs=len(masks))
    with pytest.raises(ModelError, match="zeros change nothing about --macs"):
        Annealing().start(Context(mlp(), Budget("macs", 0.5), "weight", has_budget=True))


def test_units_from_weights() -> None:
    done = Done(Annealing(keep=0.3), mlp(), granularity="unit")
    sliced = slice_verified(done.after, done.plan.removed).module
    assert sliced.get_parameter("2.weight").numel() <= 0.3 * 240 + 1
    assert done.plan.notes["2.weight"] == {"weights": 240, "share of weights": pytest.approx(0.3)}


class OneLayer(nn.Module):
    """Its units can go, and no layer reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)).sum(1, keepdim=True)


def test_nothing_to_mask() -> None:
    coupling = analyse(trace(OneLayer().eval(), (torch.randn(2, 4),)))
    with pytest.raises(ModelError, match="no layer to mask weights of"):
        Annealing().start(Context(coupling, has_budget=False))
    session = Annealing(keep=0.25, first_layer=True, variant="before").start(Context(coupling, has_budget=False))
    assert int((session.network.get_parameter("layer.weight") != 0).sum()) == 8


class TwoInputs(nn.Module):
    """Two layers read the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.a(x) * self.b(x)))
        return out


@pytest.mark.parametrize(("first", "masked"), [(False, ["last"]), (True, ["a", "b", "last"])])
def test_all_layers_that_read_the_input_are_first_ones(first: bool, masked: list[str]) -> None:
    coupling = analyse(trace(TwoInputs().eval(), (torch.randn(2, 4),)))
    session = Annealing(first_layer=first, variant="before").start(Context(coupling, has_budget=False))
    assert list(session.masks) == [f"{name}.weight" for name in masked]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 1.0}, "keep: must be above 0 and below 1, got 1"),
        ({"keep": 0.0}, "keep: must be above 0"),
        ({"mu": -1.0}, "mu: must be 0 or more"),
        ({"unit_method": "random", "scope": "all"}, "unit_method: masks whole units"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Annealing(**options)


def test_a_criterion_that_is_none() -> None:
    with pytest.raises(InputError, match="tetris is a pruner and scores no units"):
        Annealing(unit_method="tetris").start(Context(mlp()))


def test_the_contract() -> None:
    check_plugin(Annealing(unit_method="dependency"))
