"""Short circuits from conversion to slice: the function at the start, what goes, and what is left of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import fx

from compress.budget import Allocation, Budget
from compress.errors import InputError, ModelError
from compress.figures import HeatMap
from compress.graph import analyse, macs, parameters, slice_verified, trace
from compress.progress import Silent
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.dsc import DSC
from compress_plugins.dsc_columns import drop
from compress_plugins.dsc_fold import folded_network
from compress_plugins.dsc_layers import short_circuits
from tests.plugins.dsc_networks import ADAM, SGD, Done, convolutions, mlp, samples, session_of


@pytest.mark.parametrize("form", ["ffn", "gsc", "dsc"])
@pytest.mark.parametrize("gates", ["effective", "ste", "bernoulli"])
def test_the_function_is_unchanged_at_the_start(form: Any, gates: Any) -> None:
    if form != "dsc" and gates != "effective":
        return
    coupling = mlp(10, 9, 8, 3)
    network = session_of(DSC(form=form, gates=gates), coupling).network.eval().double()
    x = torch.randn(7, 10, dtype=torch.float64)
    expected = coupling.program.module.double()(x)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-7)


def test_convolutions_are_unchanged_at_the_start() -> None:
    coupling = convolutions()
    session = session_of(DSC(conv=True), coupling)
    sizes = {n: m.reading.sizes for n, m in short_circuits(session.network).items()}
    assert sizes == {"a": (2,), "b": (2, 5), "c": (2, 5, 6), "d": (2, 5, 6, 4), "e": (24,), "last": (24, 8)}
    x = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(session.network.eval()(x), coupling.program.module(x), rtol=0, atol=1e-6)


def test_a_fresh_network() -> None:
    """Every gate is sigma(1); transfer is that by both formulas; dsc is gsc with its weights scaled by it."""
    sigma = 1 / (1 + math.exp(-1))
    found = {}
    for form in ("gsc", "dsc"):
        session = session_of(DSC(form=form, init="fresh"), mlp(10, 9, 8, 3))
        eyes = _Start()
        finetune(
            session.network, samples(mlp(10, 9, 8, 3)), Training(epochs=1, lr=0.1), hooks=[InSession(session), eyes]
        )
        found[form] = eyes.network
        for name, module in short_circuits(eyes.network).items():
            weight = module.whole(eyes.network.get_parameter(f"{name}.weight"))
            bound = 1 / math.sqrt(module.reading.width)
            assert 0.8 * bound < float(weight.detach().abs().max()) <= bound
        if form == "dsc":
            blocks, rate = session._rates(eyes.network)
            assert rate == pytest.approx(sigma, abs=1e-7) and min(blocks.values()) == pytest.approx(sigma, abs=1e-7)
            other = replace(session.method, itr="layers")
            session.method = other
            assert session._rates(eyes.network)[1] == pytest.approx(sigma, abs=1e-7)
    with torch.no_grad():
        for name, module in short_circuits(found["gsc"]).items():
            found["gsc"].get_parameter(f"{name}.weight").mul_(sigma)
            if module.older is not None:
                module.older.mul_(sigma)
    x = torch.randn(5, 10)
    torch.testing.assert_close(found["dsc"](x), found["gsc"](x))


class _Start(Hook):
    """The network as it is before the first step."""

    def before_step(self, loop: Loop) -> None:
        if loop.step == 0:
            self.network = _copied(loop.network)


def _copied(network: fx.GraphModule) -> fx.GraphModule:
    import copy

    return copy.deepcopy(network).eval()


def test_inputs_and_units_that_are_forced_to_go() -> None:
    """40 -> 12, 9, 5 with single inputs dropped at random: the folded and the sliced network in float64."""
    coupling = mlp(40, 12, 9, 5)
    session = session_of(DSC(), coupling)
    network = session.network.double().eval()
    torch.manual_seed(3)
    kept = {}
    for name, module in short_circuits(network).items():
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
        kept[name] = torch.rand(module.reading.width) < 0.35
    kept["0"][:6] = kept["2"][:6] = kept["4"][:6] = False  # pixels nobody reads
    kept["2"][40:44] = kept["4"][40:44] = False  # units of layer 0
    kept["4"][52:55] = False  # units of layer 2
    drop(network, kept)
    x = torch.randn(9, 40, dtype=torch.float64)
    expected = network(x).detach()
    made = folded_network(network)
    assert float((made(x).detach() - expected).abs().max()) <= 1e-12
    after = analyse(trace(made, (x[:2],)))
    dead = session.context.dead_units(after)
    sliced = slice_verified(after, dead).module
    assert float((sliced(x).detach() - expected).abs().max()) <= 1e-12
    assert sum(len(units) for units in dead.values()) >= 4 + 3
    rows = {name: int((kept["2"][40:52] | kept["4"][40:52]).sum()) for name in ("0",)} | {
        "2": int(kept["4"][52:].sum())
    }
    columns = {name: int(mask.sum()) for name, mask in kept.items()}
    shapes = {name: tuple(sliced.get_parameter(f"{name}.weight").shape) for name in kept}
    assert shapes == {"0": (rows["0"], columns["0"]), "2": (rows["2"], columns["2"]), "4": (5, columns["4"])}
    # Removing columns leaves biases as they are, and a pixel is read as long as one layer keeps it
    assert torch.equal(made.get_buffer("0.reads_0"), kept["0"].nonzero().flatten())
    assert all(torch.equal(made.get_parameter(f"{n}.bias"), network.get_parameter(f"{n}.bias")) for n in kept)
    read = torch.cat([made.get_buffer(f"{n}.reads_0") for n in kept]).unique()
    assert torch.equal(read, (kept["0"] | kept["2"][:40] | kept["4"][:40]).nonzero().flatten())
    assert torch.equal(sliced.get_parameter("4.bias"), network.get_parameter("4.bias"))
    single = network.float()
    expected = single(x.float()).detach()
    for small in (folded_network(single), sliced.float()):
        assert float((small(x.float()).detach() - expected).abs().max()) <= 1e-5


def test_the_training_by_default() -> None:
    done = Done(DSC(), mlp(16, 12, 9, 3))
    assert done.inputs == {"0": 8, "2": 14, "4": 19}  # of 16, 28 and 37
    history = done.trained.history
    assert [entry["inputs"] for entry in history] == [81, 81, 41, 41, 41] and done.trained.best >= 2
    assert history[0]["transfer"] == pytest.approx(0.7310586) and history[2]["transfer"] < 0.5
    x = torch.randn(6, 16)
    torch.testing.assert_close(done.sliced.module(x), done.trained.module.eval()(x), rtol=0, atol=1e-5)
    assert done.plan.notes["2.weight"] == {"inputs": 28, "inputs kept": 14}
    assert done.plan.reached == pytest.approx(40 / 81)
    gates, transfer, time = done.plan.figures
    assert isinstance(gates, HeatMap) and [p.label for p in gates.panels] == ["layer 0", "layer 2", "layer 4", "mean"]
    assert len(gates.panels[0].values) == 4 and sum(math.isnan(v) for row in gates.panels[0].values for v in row) == 8
    assert isinstance(transfer, HeatMap) and transfer.panels[0].rows == ["input", "0", "2"]
    assert not isinstance(time, HeatMap) and list(time.series[0].x) == [0, 1, 2, 3, 4]


def test_dropped_columns_stay_zero_and_gates_shrink() -> None:
    done = Done(DSC(strength=0.05), mlp(16, 12, 9, 3), ADAM)
    for name, module in short_circuits(done.trained.module).items():
        whole = module.whole(done.trained.module.get_parameter(f"{name}.weight"))
        assert torch.equal((whole != 0).any(0), module.kept.bool())
    gentle = Done(DSC(strength=0.0), mlp(16, 12, 9, 3), ADAM)
    assert done.trained.history[1]["transfer"] < gentle.trained.history[1]["transfer"] - 0.02


@pytest.mark.parametrize("gates", ["threshold", "ste", "bernoulli"])
def test_gates_alone_decide(gates: Any) -> None:
    """A strong pull shuts most gates; every layer keeps an input and a reader."""
    done = Done(DSC(gates=gates, strength=0.3, learn=0.75, tau=0.6), mlp(16, 12, 9, 3), ADAM)
    assert all(count >= 1 for count in done.inputs.values()) and sum(done.inputs.values()) < 81
    x = torch.randn(6, 16)
    torch.testing.assert_close(done.sliced.module(x), done.trained.module.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "scope"), [("params", "layer"), ("macs", "all")])
def test_a_budget_counts_in_the_sliced_network(kind: Any, scope: Any) -> None:
    coupling = mlp(40, 60, 30, 3)
    budget = Budget(kind, 0.4)
    done = Done(DSC(scope=scope), coupling, budget=budget, has_budget=True)
    count = parameters if kind == "params" else macs
    limit, reached = 0.4 * count(coupling), count(done.after, done.after.alive(done.plan.removed))
    assert 0.98 * limit < reached <= limit and done.plan.reached == reached
    if kind == "params":
        assert sum(p.numel() for p in done.sliced.module.parameters()) == reached


def test_a_ratio_is_of_all_inputs() -> None:
    done = Done(DSC(scope="all"), mlp(16, 12, 9, 3), budget=Budget("ratio", 0.7), has_budget=True)
    assert sum(done.inputs.values()) == 81 - round(0.7 * 81)


class _Accuracies(Hook):
    """Of the validation samples, when the inputs are about to go and when they have gone."""

    def after_step(self, loop: Loop) -> None:
        if loop.epoch == 2 and loop.step % loop.steps_per_epoch == 0:
            self.before = loop.validated()[0]

    def after_epoch(self, loop: Loop) -> None:
        if loop.epoch == 2:
            self.after = loop.validated()[0]


def test_as_few_inputs_as_an_accuracy_allows() -> None:
    """Twenty samples judge, so that one of them is five points; no more of them than that is given away."""
    settings = replace(SGD, lr=0.2, weight_decay=0.0)
    counts = []
    for points in (0, 10, 100):
        eyes = _Accuracies()
        done = Done(DSC(max_drop=points), mlp(16, 24, 12, 3), settings, eyes)
        assert eyes.before - eyes.after <= points / 100 + 1e-9 and eyes.before > 0.4
        counts.append(sum(done.inputs.values()))
    assert 108 >= counts[0] >= counts[1] > counts[2] and counts[1] < 108
    whole = Done(DSC(min_accuracy=0.01, learn=1.0), mlp(16, 24, 12, 3), replace(settings, epochs=1)).inputs
    assert sum(whole.values()) <= 5 and counts[2] <= 5  # what has to stay
    with pytest.raises(InputError, match=r"--min-accuracy 1: before any input goes, 0\.\d+ of the validation samples"):
        Done(DSC(min_accuracy=1.0), mlp(16, 24, 12, 3), replace(SGD, epochs=1, lr=1e-4))


def test_it_ends_when_gates_have_settled() -> None:
    method = DSC(strength=0.0, window=2, settled=0.5)
    done = Done(method, mlp(16, 12, 9, 3), replace(SGD, epochs=10))
    # Settled with epoch 2; the half of the epochs that was to train what is left follows
    assert [entry["inputs"] for entry in done.trained.history] == [81, 81, *[41] * 6]
    assert done.trained.stopped == "gates had settled after epoch 2"


def test_convolutions_and_linear_layers() -> None:
    coupling = convolutions()
    done = Done(DSC(conv=True, keep=0.4), coupling, replace(SGD, lr=0.02))
    assert done.inputs["d"] == 7 and done.inputs["a"] == 1
    x = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(done.sliced.module(x), done.trained.module.eval()(x), rtol=0, atol=1e-5)
    assert any(len(units) for units in done.plan.removed.values())
    assert macs(done.after, done.after.alive(done.plan.removed)) < macs(coupling)


@pytest.mark.parametrize(
    ("budget", "options", "said"),
    [
        (Budget("ratio", 0.99), {}, "--ratio 0.99 leaves 0.8 of 81 inputs of layers, and [345] have to stay"),
        (Budget("ratio", 0.97), {"scope": "all"}, "--ratio 0.97 leaves 2.4 of 81 inputs of layers"),
        (Budget("params", 3), {}, "--params 3 cannot be met: with one input for every layer the network still has"),
        (None, {"keep": 0.01}, "--keep 0.01 leaves 0.8 of 81 inputs of layers"),
    ],
)
def test_less_than_one_input_of_a_layer(budget: Budget | None, options: dict[str, Any], said: str) -> None:
    given = {} if budget is None else {"budget": budget, "has_budget": True}
    with pytest.raises(ModelError, match=said):
        session_of(DSC(**options), mlp(16, 12, 9, 3), **given)


def test_two_goals() -> None:
    with pytest.raises(InputError, match="--max-drop finds by itself how much may go"):
        session_of(DSC(max_drop=1), mlp(8, 6, 3), has_budget=True)
    with pytest.raises(InputError, match="--bytes: dsc chooses while the network trains"):
        session_of(DSC(), mlp(8, 6, 3), has_budget=True, budget=Budget("bytes", 0.5))
    with pytest.raises(InputError, match="--round-to: dsc removes inputs of layers"):
        session_of(DSC(), mlp(8, 6, 3), allocation=Allocation(round_to=8))


def test_gates_that_have_not_moved() -> None:
    said: list[str] = []

    class Told(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    Done(DSC(), mlp(16, 12, 9, 3), replace(SGD, epochs=1, lr=0.001), progress=Told())
    assert len(said) == 1 and "the gates have hardly moved (transfer 0.7311, then 0.731" in said[0]
    Done(DSC(strength=0.05), mlp(16, 12, 9, 3), ADAM, progress=Told())
    assert len(said) == 1
    with pytest.raises(InputError, match=r"no gate is below --tau 0\.5: the lowest is at 0\.7") as found:
        Done(DSC(gates="threshold"), mlp(16, 12, 9, 3), replace(SGD, epochs=1))
    assert found.value.hint is not None and "--optimizer adamw" in found.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 1.0}, "keep: must be above 0 and below 1, got 1"),
        ({"tau": 0.0}, "tau: must be above 0"),
        ({"learn": 0.0}, "learn: must be above 0 and at most 1"),
        ({"strength": -1.0}, "strength: must be 0 or more"),
        ({"window": 0}, "window: must be at least 1"),
        ({"form": "gsc", "gates": "ste"}, "gates: gsc has none"),
        ({"min_accuracy": 0.9, "max_drop": 1.0}, "both a floor"),
        ({"min_accuracy": 1.5}, "min_accuracy: must be above 0 and at most 1"),
        ({"max_drop": -1.0}, "max_drop: must be from 0 to 100 points"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DSC(**options)


@pytest.mark.parametrize("method", [DSC(), DSC(gates="bernoulli")])
def test_the_contract(method: DSC) -> None:
    check_plugin(method)
