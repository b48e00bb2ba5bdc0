"""Pruning by standout: what is trained, when units go, what is folded and what is sliced."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.budget import Budget
from compress.errors import InputError, ModelError
from compress.figures import Figure
from compress.graph import Coupling, parameters, remove_dead, slice_verified
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.retrain import plan_of, start_session
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.standout import Pruning, Standout
from compress_plugins.standout_gate import gates
from tests.plugins.standout_networks import SGD, Done, Shared, mlp, normed, residual, samples

# Momentum and weight decay move a weight whose gradient is zero


class Zeros(Hook):
    """Of a parameter the rows that are zero after every step."""

    def __init__(self, name: str) -> None:
        self.name, self.found = name, [set[int]()]

    def after_step(self, loop: Loop) -> None:
        weight = loop.network.get_parameter(self.name)
        self.found.append({i for i, row in enumerate(weight.detach()) if not bool(row.any())})


def test_512_to_one() -> None:
    settings = Training(epochs=9, batch_size=50, lr=1e-3, warmup=0)
    done = Done(Standout(nodes=1, period=1), mlp(512), settings)
    assert done.left == [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert slice_verified(done.after, done.plan.removed).module.get_parameter("0.weight").shape == (1, 10)
    done = Done(Standout(nodes=38, period=1, gamma=0.25), mlp(512), settings)
    assert done.left == [512, 384, 288, 216, 162, 122, 91, 68, 51, 38]


def test_when_and_which_units_go() -> None:
    zeros = Zeros("0.weight")
    done = Done(Standout(nodes=3), mlp(12), SGD, zeros)
    assert done.session.prunings == [[1, 6], [2, 3]] and done.left == [12, 6, 3, 3, 3, 3, 3]
    per_epoch = (len(zeros.found) - 1) // 6
    assert not any(zeros.found[:per_epoch])  # masked after the last step of the first epoch
    counts = [len(found) for found in zeros.found]
    assert counts == sorted(counts) and counts[-1] == 9
    assert all(one <= two for one, two in zip(zeros.found, zeros.found[1:], strict=False))
    assert set(done.plan.removed["0"].tolist()) == zeros.found[-1]
    assert done.trained.best >= 2
    late = Done(Standout(nodes=3, period=3), mlp(12))
    assert late.left == [12, 12, 12, 6, 6, 6, 3]


def test_the_retention_of_a_period_is_over_all_its_samples() -> None:
    """Summed again in a second network: with a learning rate of almost nothing the weights are those of the start."""
    coupling = mlp(12)
    settings = Training(epochs=2, batch_size=20, lr=1e-12, weight_decay=0.0, warmup=0, validation=0.1)

    class Seen(Hook):
        def __init__(self) -> None:
            self.counted: Tensor | None = None

        def after_epoch(self, loop: Loop) -> None:
            if loop.epoch == 1:
                self.counted = session.counted["standout_0"].clone()

    session = Standout(nodes=6, period=2).start(Context(coupling, has_budget=False))
    data, seen = samples(coupling), Seen()
    finetune(session.network, data, settings, hooks=[seen, InSession(session)])
    assert seen.counted is not None
    number = int(seen.counted[-1])
    assert number == 90
    weight = coupling.program.module.get_parameter("0.weight").detach()
    everything = torch.sigmoid(0.5 * data.inputs @ weight.t() + 1)
    mean = seen.counted[:12] / number
    assert float((mean - everything.mean(0)).abs().max()) < 0.05  # ten of the hundred judge
    assert set(session.removed["0"]) == set(mean.argsort()[:6].tolist())


def test_every_period_counts_anew() -> None:
    """What was summed before a pruning says nothing at the next one."""
    found: list[int] = []

    class Seen(Hook):
        def after_epoch(self, loop: Loop) -> None:
            found.append(int(session.counted["standout_0"][-1]) if session.counted else 0)

    session, coupling = Standout(nodes=3, period=2).start(Context(mlp(12), has_budget=False)), mlp(12)
    finetune(session.network, samples(coupling), replace(SGD, epochs=5), hooks=[Seen(), InSession(session)])
    assert found == [90, 180, 90, 180, 0]  # ten of the hundred judge; nothing is counted once all has gone


CASES: dict[str, tuple[Standout, Coupling, dict[str, Any]]] = {
    "relu": (Standout(nodes=4), mlp(12, 9), {}),
    "batch norm, leaky, in place, no bias": (Standout(nodes=4, alpha=-2.0, beta=0.3), normed(12), {}),
    "sigmoid": (Standout(nodes=4), mlp(12, 9, between=(nn.Sigmoid(),)), {}),
    "input sum": (Standout(nodes=4, beta_mode="input_sum", beta=0.2), mlp(12, 9), {}),
    "input sum, no bias": (Standout(nodes=4, beta_mode="input_sum", beta=-0.2), mlp(12, 9, bias=False), {}),
    "the same layer twice": (Standout(nodes=4), residual(Shared, 10), {}),
    "channels": (Standout(conv=True, nodes=3), residual(), {}),
    "channels, together": (
        Standout(conv=True, ranking="together"), residual(), {"has_budget": True, "budget": Budget("macs", 0.5)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_slice_is_the_trained_network(name: str) -> None:
    method, coupling, context = CASES[name]
    done = Done(method, coupling, **context)
    assert done.plan.removed
    trained, after = done.in_float64()
    sliced = slice_verified(after, done.plan.removed)
    assert not sliced.rolled_back
    x = torch.randn(7, *coupling.program.inputs[0].shape[1:], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(sliced.module(x), trained(x), rtol=0, atol=1e-9)
        small = slice_verified(done.after, done.plan.removed).module(x.float())
        masked = done.trained.module.eval()(x.float())
        assert float((small - masked).abs().max()) <= 1e-6 * max(1.0, float(masked.abs().max()))
    masks = plan_of(done.session, Context(done.after, granularity="weight")).masks
    dead = remove_dead(done.after, masks)
    assert {n: len(u) for n, u in dead.removed.items()} == {n: len(u) for n, u in done.plan.removed.items()}


def test_what_the_result_computes_by_hand() -> None:
    done = Done(Standout(nodes=4, alpha=0.7, beta=0.4), mlp(12))
    small = slice_verified(done.after, done.plan.removed).module
    w, b, w2, b2 = (small.get_parameter(n) for n in ("0.weight", "0.bias", "2.weight", "2.bias"))
    assert w.shape == (4, 10) and b.abs().min() > 0
    x = torch.randn(5, 10)
    hidden = torch.relu(x @ w.t() + b) * torch.sigmoid(0.7 * x @ w.t() + 0.4)
    torch.testing.assert_close(small(x), hidden @ w2.t() + b2)
    assert {n for n, p in small.named_parameters() if p.dim() > 1} == {"0.weight", "2.weight"}
    torch.testing.assert_close(small.get_buffer("0.standout_shift"), 0.4 - 0.7 * b.detach())


def test_the_trained_network_is_the_same_in_every_evaluation() -> None:
    done = Done(Standout(nodes=4), mlp(12))
    x, network = torch.randn(5, 10), done.trained.module.eval()
    assert torch.equal(network(x), network(x))
    assert len(gates(network)) == 1 and not gates(done.after.program.module)
    assert all(not gate.training for gate in gates(done.session.network).values())


def test_folded_to_means() -> None:
    done = Done(Standout(nodes=4, fold="constant"), mlp(12, 9))
    module = done.after.program.module
    operations = {str(node.target) for node in module.graph.nodes if node.op == "call_function"}
    assert operations == {"aten.linear.default", "aten.relu.default"} and not list(module.named_buffers())
    x = samples(done.coupling).inputs
    with torch.no_grad():
        exact, network = done.trained.module.eval()(x), done.trained.module
        hidden = torch.relu(functional.linear(x, network.get_parameter("0.weight"), network.get_parameter("0.bias")))
        p = torch.sigmoid(0.5 * functional.linear(x, network.get_parameter("0.weight")) + 1)
        expected = network.get_parameter("2.weight") * p.mean(0)
        torch.testing.assert_close(module.get_parameter("2.weight"), expected)
        assert hidden.shape[1] == 12
        error = float((module(x) - exact).norm() / exact.norm())
    assert 0 < error < 1
    assert f"on 100 training samples the scores are off by {100 * error:.2g} %" in done.session.approximation


def test_folded_to_means_where_no_weight_takes_them() -> None:
    done = Done(Standout(nodes=4, conv=True, fold="constant"), residual())
    module = done.after.program.module
    names = {name for name, _ in module.named_buffers() if "standout" in name}
    assert names == {"stem.standout_mean_0"}  # a sum reads what the stem gives, and a convolution what the other does
    sliced = slice_verified(done.after, done.plan.removed)
    assert not sliced.rolled_back and sliced.module.get_buffer("stem.standout_mean_0").shape == (4, 1, 1)


def test_a_budget_of_the_whole_network() -> None:
    coupling = mlp(20, 16)
    done = Done(Standout(), coupling, has_budget=True, budget=Budget("params", 0.3))
    sliced = slice_verified(done.after, done.plan.removed).module
    left = sum(p.numel() for p in sliced.parameters())
    assert 0.25 * parameters(coupling) < left <= 0.3 * parameters(coupling)
    assert done.left[0] == 36 and done.left[1] == 18


def test_adam_after_one_period_more() -> None:
    class Kinds(Hook):
        def __init__(self) -> None:
            self.found: list[tuple[str, float]] = []

        def before_step(self, loop: Loop) -> None:
            kind = type(getattr(loop.optimizer, "optimizer", loop.optimizer)).__name__
            self.found.append((kind, loop.optimizer.param_groups[0]["lr"]))

    kinds = Kinds()
    settings = replace(SGD, optimizer="adamw", lr=None, schedule="constant")
    done = Done(Standout(nodes=3, phases=True), mlp(12), settings, kinds)
    assert done.session.prunings == [[1, 6], [2, 3]]
    assert kinds.found[::5] == [("SGD", 0.02)] * 3 + [("AdamW", 1e-3)] * 3
    settings = replace(SGD, epochs=3)
    with pytest.raises(InputError, match=r"4 epochs are needed to prune 2 times .* and to change to Adam"):
        Done(Standout(nodes=3, phases=True), mlp(12), settings)


def test_pruned_again_once_it_has_recovered() -> None:
    session = start_session(Standout(nodes=3, period=4, recovered=True), Context(mlp(12), has_budget=False))
    assert isinstance(session, Pruning)
    session.period, session.prunings, session.before = 4, [[4, 6]], 0.5

    def due(epoch: int, judged: float) -> bool:
        loop: Any = SimpleNamespace(epoch=epoch, history=[{"epoch": epoch - 1, "validation loss": judged}])
        return session._due(loop)

    assert not due(5, 0.6) and due(5, 0.5) and not due(7, 0.51) and due(8, 0.9)
    session.prunings = []
    assert not due(3, 0.1) and due(4, 9.0)
    fast = Done(Standout(nodes=1, recovered=True, period=2), mlp(16), replace(SGD, epochs=8, lr=0.2))
    plain = Done(Standout(nodes=1, period=2), mlp(16), replace(SGD, epochs=8, lr=0.2))
    assert [epoch for epoch, _ in plain.session.prunings] == [2, 4, 6, 8]
    assert fast.session.prunings[0][0] == 2 and fast.session.prunings[-1][0] <= 8


def test_pictures() -> None:
    done = Done(Standout(nodes=3), mlp(12))
    loss, accuracy = (each for each in done.plan.figures if isinstance(each, Figure))
    assert [s.label for s in loss.series] == ["loss", "validation loss", "pruned, units left"]
    history = done.trained.history
    assert list(loss.series[2].x) == [1, 2] and list(loss.series[2].names) == ["6", "3"]
    assert list(loss.series[2].y) == [history[1]["validation loss"], history[2]["validation loss"]]
    assert list(accuracy.series[0].y) == [entry["validation accuracy"] for entry in history]


def test_layers_that_are_narrow_enough_stay_whole() -> None:
    done = Done(Standout(nodes=9), mlp(12, 9))
    assert {n: len(u) for n, u in done.plan.removed.items()} == {"0": 3}
    assert done.plan.notes == {"2": {"keeps its width": "no more units than --nodes"}}


def test_it_learns() -> None:
    done = Done(Standout(nodes=6), mlp(24), replace(SGD, epochs=16, weight_decay=0.0, lr=0.1))
    assert max(entry["validation accuracy"] for entry in done.trained.history[8:]) >= 0.8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nodes": 0}, "nodes: a layer keeps one unit at least, got 0"),
        ({"gamma": 0.0}, "gamma: must be from 0.01 to 1, got 0"),
        ({"period": -1}, "period: must be 0 or more"),
        ({"alpha": float("inf")}, "alpha: must be a finite number"),
        ({"conv": True, "beta_mode": "input_sum"}, "beta_mode: input_sum is about linear layers"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Standout(**options)


def test_networks_that_are_refused() -> None:
    with pytest.raises(ModelError, match="nowhere to put a gate") as found:
        Standout().start(Context(residual()))
    assert found.value.hint is not None and found.value.hint.startswith("--conv")
    with pytest.raises(InputError, match="its activation gives no zero for zero"):
        Standout(beta_mode="input_sum").start(Context(mlp(12, between=(nn.Sigmoid(),)), has_budget=False))
    with pytest.raises(InputError, match="8 epochs are needed to prune 2 times with a period of 4") as short:
        Done(Standout(nodes=3, period=4), mlp(12))
    assert short.value.hint is not None and short.value.hint.startswith("--epochs 16")


@pytest.mark.parametrize(
    "method",
    [Standout(conv=True, phases=True, ranking="together"), Standout(fold="constant", recovered=True)],
)
def test_the_contract(method: Standout) -> None:
    check_plugin(method)
