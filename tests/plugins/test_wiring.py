"""Wirings: which weights are edges, how they start, what they become, and what is left of the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.data import Split
from compress.errors import ModelError
from compress.figures import Figure
from compress.graph import Coupling, analyse, remove_dead, trace
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.retrain import folded, plan_of, start_session
from compress.schedules import annealed
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.edges import Strongest, Thresholded
from compress_plugins.wiring import Wired, Wiring

SGD = Training(epochs=6, batch_size=20, lr=0.05, weight_decay=0.1, warmup=0, patience=0)


class Net(nn.Module):
    """Two 1x1 convolutions between a 3x3 one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.wide, self.narrow, self.head = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.narrow(torch.relu(self.wide(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def mlp() -> Coupling:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))
    return analyse(trace(module.eval(), (torch.randn(2, 10),)))


def cnn() -> Coupling:
    torch.manual_seed(0)
    return analyse(trace(Net().eval(), (torch.randn(2, 1, 5, 5),)))


def samples(coupling: Coupling) -> Split:
    x = torch.randn(100, *coupling.program.inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    return Split(x, x.flatten(1)[:, :3].argmax(1))


def context_of(coupling: Coupling, **given: Any) -> Context:
    settings: dict[str, Any] = {"granularity": "weight", "has_budget": False} | given
    return Context(coupling, **settings)


class Eyes(Hook):
    """The edges after every step, and what was left of them after every epoch."""

    def __init__(self, session: Wired) -> None:
        self.session = session
        self.steps: list[dict[str, Tensor]] = []
        self.decays: dict[str, float] = {}

    def start(self, loop: Loop) -> None:
        names = {id(p): name for name, p in loop.network.named_parameters()}
        for group in loop.optimizer.param_groups:
            self.decays |= {names[id(p)]: group["weight_decay"] for p in group["params"]}

    def after_step(self, loop: Loop) -> None:
        edges = self.session.fold(loop.network)
        self.steps.append({name: edges.get_parameter(name).detach().clone() for name in self.session.edges})


class Done:
    """A training and what came of it."""

    def __init__(self, method: Wiring, coupling: Coupling, settings: Training = SGD, **given: Any) -> None:
        session = start_session(method, context_of(coupling, **given))
        assert isinstance(session, Wired)
        self.session, self.eyes = session, Eyes(session)
        hooks = [InSession(session), self.eyes]
        self.trained = finetune(session.network, samples(coupling), settings, hooks=hooks)
        self.after = analyse(folded(session, self.trained.module, coupling.program))
        self.plan = plan_of(session, context_of(self.after, **given))
        self.left = {n: int(torch.count_nonzero(self.after.program.module.get_parameter(n))) for n in session.edges}


def test_which_weights_are_edges() -> None:
    assert Wiring().start(context_of(cnn())).edges == ("wide.weight", "narrow.weight")
    assert Wiring().start(context_of(mlp())).edges == ("0.weight", "2.weight", "4.weight")
    assert Wiring().start(context_of(mlp(), only=("2",))).edges == (
        "2.weight",
        "4.weight",
    )  # what makes it, and reads it
    assert Wiring().start(context_of(cnn(), only=("stem",))).edges == ("wide.weight",)
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    without = analyse(trace(convolutions, (torch.randn(2, 1, 7, 7),)))
    with pytest.raises(ModelError, match="no edges: there is no 1x1 convolution and no linear layer") as found:
        Wiring().start(context_of(without))
    assert found.value.hint is not None and "--mode annealing" in found.value.hint


@pytest.mark.parametrize("options", [{}, {"group": "output", "rectified": True}, {"by": "dnw", "keep": 0.999}])
@pytest.mark.parametrize("network", [mlp, cnn])
def test_the_start_is_the_network_as_it_was(options: dict[str, Any], network: Any) -> None:
    coupling = network()
    with torch.no_grad():  # an output without an edge, and a few zeros more
        coupling.program.module.get_parameter("2.weight" if network is mlp else "narrow.weight")[0] = 0
    session = Wiring(**options).start(context_of(coupling))
    x = torch.randn(7, *coupling.program.inputs[0].shape[1:])
    assert float((session.network(x) - coupling.program.module(x)).detach().abs().max()) <= 1e-6
    edges = session.fold(session.network)
    for name in session.edges:
        assert torch.equal(edges.get_parameter(name) == 0, coupling.program.module.get_parameter(name) == 0)


@pytest.mark.parametrize(
    "options",
    [{"lam": 0.03}, {"lam": 0.03, "group": "output", "rectified": True}, {"by": "proximal", "lam": 0.3}],
)
def test_the_norm_makes_edges_zero_and_the_result_is_exact(options: dict[str, Any]) -> None:
    coupling = cnn()
    done = Done(Wiring(**options), coupling)
    total = 8 * 12 + 12 * 6
    assert 0 < sum(done.left.values()) < 0.9 * total and done.trained.best == 6
    edges = [entry["edges"] for entry in done.trained.history]
    assert edges[0] == total and edges[-1] == sum(done.left.values())
    network = done.after.program.module
    nonzero = sum(int(torch.count_nonzero(p)) for p in network.parameters())
    assert done.trained.history[-1]["nonzero"] == nonzero
    x = samples(coupling).inputs[:9]
    with torch.no_grad():
        assert float((network(x) - done.trained.module(x)).abs().max()) <= 1e-5
    assert all(torch.equal(mask, network.get_parameter(n) != 0) for n, mask in done.plan.masks.items())
    assert remove_dead(done.after, done.plan.masks).verification.error <= 1e-9
    (figure,) = (each for each in done.plan.figures if isinstance(each, Figure))
    assert list(figure.series[0].y) == edges and figure.title == "Edges that are not zero, of 168"


def test_folding_is_exact_in_double_precision() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double().eval()
    coupling = analyse(trace(module, (torch.randn(2, 6).double(),)))
    session = Wiring(group="output").start(context_of(coupling))
    with torch.no_grad():
        for name, tensor in session.network.named_parameters():
            tensor.add_(torch.full_like(tensor, 2.0) if name.endswith("beta") else 0.05 * torch.randn_like(tensor))
    x = torch.randn(20, 6).double()
    plain = session.fold(session.network)
    assert 0 < sum(int((plain.get_parameter(n) == 0).sum()) for n in session.edges) < 81
    assert float((plain(x) - session.network(x)).detach().abs().max()) <= 1e-9


def test_what_stays_where_little_is_said() -> None:
    methods = (Wiring(), Wiring(lam=0.1), Wiring(by="dnw"), Wiring(keep=0.4, lam=1.0))
    assert [m.start(context_of(mlp())).keep for m in methods] == [0.2, None, 0.2, 0.4]
    assert Wiring(by="proximal", norm="l12").start(context_of(mlp())).lam == 1e-6


def test_thresholds_do_not_decay() -> None:
    """Nothing but decay moves what has no gradient."""
    done = Done(Wiring(lam=0), mlp())
    decays = done.eyes.decays
    assert decays["wiring_edges.alpha"] == decays["wiring_edges.beta"] == decays["0.bias"] == 0
    decays = Done(Wiring(lam=0, group="output"), mlp()).eyes.decays  # with a threshold for each output
    assert decays["wiring_edges.alpha"] == decays["wiring_edges.beta"] == 0
    assert Done(Wiring(by="dnw"), mlp()).eyes.decays["2.weight"] == 0.1


def test_the_gradient_reaches_edges_that_are_not_used() -> None:
    weight = torch.tensor([[3.0, -1.0], [0.5, -2.0]], requires_grad=True)
    module = Strongest([weight])
    module.kept[0].copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    (edges,) = module(weight)
    assert edges.tolist() == [[3, 0], [0, -2]]
    (edges * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1, 2], [3, 4]]


def test_the_largest_are_used_after_every_step() -> None:
    done = Done(Wiring(by="dnw", keep=0.25), mlp())
    for step in done.eyes.steps:
        assert [int(torch.count_nonzero(step[f"{i}.weight"])) for i in (0, 2, 4)] == [50, 60, 9]
    used = torch.stack([step["2.weight"] != 0 for step in done.eyes.steps])
    assert bool((used[-1] & ~used[0]).any())  # edges come back
    assert {entry["edges"] for entry in done.trained.history} == {119}
    together = Done(Wiring(by="dnw", keep=0.25, scope="all"), mlp())
    assert {entry["edges"] for entry in together.trained.history} == {119} and together.left != done.left


@pytest.mark.parametrize("by", ["ds", "proximal"])
def test_a_fraction_is_met_on_the_schedule_of_annealing(by: Any) -> None:
    done = Done(Wiring(by=by, keep=0.2, lam=0.001), mlp())
    total, steps = 200 + 240 + 36, len(done.eyes.steps)
    for i, step in enumerate(done.eyes.steps, 1):
        assert sum(int(torch.count_nonzero(w)) for w in step.values()) <= annealed(i, steps, total, 95, 3)
    assert done.trained.best >= 3 and done.trained.history[-1]["strength"] == 0
    cut = {n: w == 0 for n, w in done.eyes.steps[steps // 2 - 1].items()}
    assert all(not step[n][zero].any() for step in done.eyes.steps[steps // 2 :] for n, zero in cut.items())
    assert 85 <= sum(done.left.values()) <= 95


@pytest.mark.parametrize("by", ["ds", "dnw", "proximal"])
def test_a_budget_decides(by: Any) -> None:
    done = Done(Wiring(by=by), mlp(), budget=Budget("params", 200), has_budget=True)
    nonzero = sum(int(torch.count_nonzero(p)) for p in done.after.program.module.parameters())
    assert 180 <= nonzero <= 200 and done.trained.history[-1]["nonzero"] == nonzero
    with pytest.raises(ModelError, match="zeros change nothing about --macs"):
        Wiring(by=by).start(context_of(mlp(), budget=Budget("macs", 0.5), has_budget=True))


def test_zeros_stay_zeros() -> None:
    coupling = mlp()
    weight = coupling.program.module.get_parameter("2.weight")
    with torch.no_grad():
        weight[:, :10] = 0
    for options in ({"rectified": True}, {"by": "dnw", "keep": 0.6}, {"by": "proximal"}):
        done = Done(Wiring(**options), coupling, Training(epochs=2, lr=0.05))
        assert not done.after.program.module.get_parameter("2.weight")[:, :10].any()


def test_a_strength_that_does_nothing_is_told() -> None:
    context = context_of(mlp())
    plan = Wiring().start(context).plan(context)
    assert plan.notes["0.weight"]["warning"] == "no edge became zero: a larger --lam, more --epochs, or --keep"


def test_a_threshold_for_each_output() -> None:
    weight = torch.tensor([[2.0, -1.0, 0.25], [0.0, 0.0, 0.0]])
    module = Thresholded([weight], [(1,)], guard=False, rectify=False)
    assert module.beta.shape == (2,) and module.kept[0].tolist() == [[1, 1, 1], [0, 0, 0]]
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([2.0, -1.0, 1.0, 0.5, 0.25, -0.25]))
        module.beta.copy_(torch.logit(torch.tensor([0.25, 0.45])))
        module.kept[0].fill_(1)
    (edges,) = module()
    torch.testing.assert_close(edges, torch.tensor([[1.0, 0.0, 0.0], [0.05, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 1.0}, "keep: must be above 0 and below 1"),
        ({"lam": -1.0}, "lam: must be 0 or more"),
        ({"by": "dnw", "rectified": True}, "rectified: is about the thresholds"),
        ({"norm": "l12"}, "norm: l12 is a step of --by proximal"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Wiring(**options)


@pytest.mark.parametrize("options", [{"rectified": True, "group": "output"}, {"by": "proximal", "norm": "l12-exact"}])
def test_the_contract(options: dict[str, Any]) -> None:
    check_plugin(Wiring(**options))
