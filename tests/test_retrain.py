"""Sessions of retrain methods: what the core lets them do, and what it does not let pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compress.data import Split
from compress.errors import InputError, PluginError
from compress.graph import Coupling, analyse, slice_verified, trace
from compress.plugin import Context, Loop, Plan, Session, option
from compress.recover import InSession, Trained, finetune
from compress.retrain import folded, plan_of, start_session
from compress.testing import check_plugin
from compress.training import Training

SETTINGS = Training(epochs=3, batch_size=16, lr=0.05, weight_decay=0.0, warmup=0)


def mlp() -> Coupling:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    return analyse(trace(module.eval(), (torch.randn(2, 6),)))


def samples() -> Split:
    torch.manual_seed(1)
    x = torch.randn(64, 6)
    return Split(x, x[:, :3].argmax(1))


def train(session: Session) -> Trained:
    return finetune(session.network, samples(), SETTINGS, hooks=[InSession(session)])


@dataclass(frozen=True)
class Plain:
    """Makes the session it was given."""

    make: Callable[[Context], Any] = option(None, "of a session")

    def start(self, context: Context) -> Session:
        session: Session = self.make(context)
        return session


class Nothing(Session):
    """Trains and plans nothing."""

    def plan(self, context: Context) -> Plan:
        return Plan()


class Gates(Session):
    """A trainable gate on every hidden unit; a penalty drives gates down, the smallest half goes."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.network.gates = nn.Parameter(torch.ones(12))
        graph = self.network.graph
        (relu,) = (node for node in graph.nodes if node.name.startswith("relu"))
        with graph.inserting_after(relu):
            gates = graph.get_attr("gates")
        with graph.inserting_after(gates):
            gated = graph.call_function(torch.ops.aten.mul.Tensor, (relu, gates))
        relu.replace_all_uses_with(gated, delete_user_cb=lambda node: node is not gated)
        self.network.recompile()
        self.penalties = 0

    def penalty(self, loop: Loop) -> Tensor:
        self.penalties += 1
        return 0.1 * loop.network.get_parameter("gates").abs().sum()

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        self.gates = network.get_parameter("gates").detach()
        plain = self.context.copy()
        with torch.no_grad():
            for name, tensor in plain.named_parameters():
                tensor.copy_(network.get_parameter(name))
            plain.get_parameter("2.weight").mul_(self.gates)
        return plain

    def plan(self, context: Context) -> Plan:
        return Plan({"0": np.sort(self.gates.argsort()[:6].numpy())})


def test_a_session_puts_gates_into_the_graph_and_folds_them_into_weights() -> None:
    coupling = mlp()
    context = Context(coupling)
    session = start_session(Plain(Gates), context)
    assert isinstance(session, Gates)
    trained = train(session)
    gates = trained.module.get_parameter("gates").detach()
    assert float(gates.min()) < 0.9 and session.penalties == 3 * 4
    assert "gates" not in dict(context.module.named_parameters())
    program = folded(session, trained.module, coupling.program)
    x = torch.randn(5, 6)
    torch.testing.assert_close(program.module(x), trained.module(x))
    after = analyse(program)
    plan = plan_of(session, Context(after))
    sliced = slice_verified(after, plan.removed)
    assert not sliced.rolled_back and sliced.module.get_parameter("2.weight").shape == (3, 6)


def test_operations_that_stay_are_analysed_with_the_rest() -> None:
    class Kept(Gates):
        def fold(self, network: fx.GraphModule) -> fx.GraphModule:
            return network

    coupling = mlp()
    session = start_session(Plain(Kept), Context(coupling))
    after = analyse(folded(session, train(session).module, coupling.program))
    sliced = slice_verified(after, {"0": np.array([0, 5])}).module
    assert sliced.get_parameter("gates").shape == (10,) and sliced(torch.randn(3, 6)).shape == (3, 3)


def test_a_penalty_has_its_gradient_in_every_step() -> None:
    class Shrink(Nothing):
        def penalty(self, loop: Loop) -> Tensor:
            return 100 * loop.network.get_parameter("0.weight").square().sum()

    one = train(Shrink(Context(mlp()))).history[1]
    parts = Training(**{**vars(SETTINGS), "accumulate": 4, "lr": 1e-6})
    whole = Training(**{**vars(SETTINGS), "lr": 1e-6})
    session = [Shrink(Context(mlp())) for _ in range(2)]
    found = [
        finetune(s.network, samples(), settings, hooks=[InSession(s)]).history[1]["loss"]
        for s, settings in zip(session, (whole, parts), strict=True)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)  # once, in however many parts a batch is run
    assert one["loss"] > 1


def test_an_epoch_that_is_not_ready_is_not_kept() -> None:
    class Late(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch == 2

        def numbers(self, loop: Loop) -> Mapping[str, float]:
            return {"steps": loop.step}

    trained = train(Late(Context(mlp())))
    assert trained.best == 2 and [e["steps"] for e in trained.history] == [0, 4, 8, 12]
    assert all(e["nonzero"] == 6 * 12 + 12 + 36 + 3 for e in trained.history)

    class Never(Nothing):
        def ready(self, loop: Loop) -> bool:
            return False

    with pytest.raises(InputError, match="the method was not done with the network in any epoch"):
        train(Never(Context(mlp())))


def test_a_session_ends_the_training_and_sees_how_it_goes() -> None:
    class Early(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch >= 1

        def after_epoch(self, loop: Loop) -> None:
            self.before = (len(loop.history), loop.validated())

        def numbers(self, loop: Loop) -> Mapping[str, float]:
            return {"own": 7.0}

        def finished(self, loop: Loop) -> str:
            last = loop.history[-1]
            assert last["own"] == 7.0 and last["epoch"] == loop.epoch
            if loop.epoch:
                assert self.before == (loop.epoch, (last["validation accuracy"], last["validation loss"]))
            return "enough" if loop.epoch != 1 else ""

    trained = train(Early(Context(mlp())))
    assert len(trained.history) == 3 and trained.stopped == "enough"  # not at epoch 0, when nothing was ready


def test_a_loss_that_is_no_number_before_the_method_is_done() -> None:
    class Breaks(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch == 3

        def after_step(self, loop: Loop) -> None:
            with torch.no_grad():
                loop.network.get_parameter("0.weight").fill_(torch.nan)

    with pytest.raises(
        InputError, match=r"not a number any more in epoch 1 .*: no epoch before it can be kept"
    ) as found:
        train(Breaks(Context(mlp())))
    assert found.value.hint == "a lower --lr"


class Still(Nothing):
    """A second tensor of two dims that nothing reads, so that decay alone could move it."""

    named: tuple[str, ...] = ("still",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.network.still = nn.Parameter(torch.ones(2, 2))

    def undecayed(self) -> tuple[str, ...]:
        return self.named

    def penalty(self, loop: Loop) -> Tensor:
        return 0 * loop.network.get_parameter("still").sum()


class Unnamed(Still):
    named = ()


class Misnamed(Still):
    named = ("stil",)


def test_what_a_session_names_does_not_decay() -> None:
    decayed = Training(**{**vars(SETTINGS), "weight_decay": 0.1})
    for made, same in ((Still, True), (Unnamed, False)):
        session = made(Context(mlp()))
        found = finetune(session.network, samples(), decayed, hooks=[InSession(session)]).module
        assert torch.equal(found.get_parameter("still"), torch.ones(2, 2)) == same
    with pytest.raises(PluginError, match=r"Misnamed\.undecayed names 'stil', which is no parameter"):
        train(Misnamed(Context(mlp())))


class Raises(Nothing):
    def after_step(self, loop: Loop) -> None:
        raise KeyError("no such thing")


class Reshapes(Nothing):
    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        changed = self.context.copy()
        with torch.no_grad():
            changed.get_parameter("2.bias").add_(1)
        return changed


def test_what_a_session_does_wrong_names_it() -> None:
    context = Context(mlp())
    with pytest.raises(PluginError, match="Raises failed: KeyError: 'no such thing'"):
        train(Raises(context))
    with pytest.raises(PluginError, match=r"Plain\.start returned int, not a Session"):
        start_session(Plain(lambda c: 3), context)
    with pytest.raises(PluginError, match="Plain failed: ZeroDivisionError"):
        start_session(Plain(lambda c: 1 // 0), context)
    session = Reshapes(context)
    with pytest.raises(PluginError, match=r"Reshapes\.fold: the result differs from the trained network"):
        folded(session, train(session).module, context.coupling.program)
    own = Nothing(context)
    own.network = context.module
    with pytest.raises(PluginError, match="trains a copy, not the network of its context"):
        start_session(Plain(lambda c: own), context)
    with pytest.raises(PluginError, match="Session failed: NotImplementedError: a session ends in a plan"):
        plan_of(Session(context), context)


def test_the_suite_finds_state_that_is_not_kept() -> None:
    class Forgets(Nothing):
        def __init__(self, context: Context) -> None:
            super().__init__(context)
            self.steps = 0

        def after_step(self, loop: Loop) -> None:
            self.steps += 1

        def plan(self, context: Context) -> Plan:
            group = context.groups[0]
            return Plan({group.name: np.array([self.steps % 3])})

    with pytest.raises(PluginError, match="a training that was cut off and went on ends otherwise"):
        check_plugin(Plain(Forgets))


class Changes(Nothing):
    """Goes on with another optimizer after the second epoch."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.kinds: list[str] = []

    def after_step(self, loop: Loop) -> None:
        self.kinds.append(f"{type(loop.optimizer.optimizer).__name__} {loop.optimizer.param_groups[0]['lr']:g}")

    def after_epoch(self, loop: Loop) -> None:
        if loop.epoch == 2:
            loop.change_optimizer(optimizer="adamw", lr=1e-3, weight_decay=0.0)

    def plan(self, context: Context) -> Plan:
        return Plan({context.groups[0].name: np.array([0])})


def test_another_optimizer_from_some_step_on() -> None:
    session = Changes(Context(mlp()))
    settings = Training(**{**vars(SETTINGS), "schedule": "constant"})
    trained = finetune(session.network, samples(), settings, hooks=[InSession(session)])
    assert session.kinds == ["SGD 0.05"] * 8 + ["AdamW 0.001"] * 4
    assert [entry.get("learning rate") for entry in trained.history] == [None, 0.05, 0.001, 0.001]
    check_plugin(Plain(Changes))  # cut off after the change, it goes on with it


def test_a_fold_that_only_comes_near_says_so() -> None:
    class Near(Reshapes):
        approximation = "off by one"

        def plan(self, context: Context) -> Plan:
            return Plan(notes={"0": {"units": "all"}})

    context = Context(mlp())
    session = Near(context)
    trained = train(session)
    after = analyse(folded(session, trained.module, context.coupling.program))
    assert not torch.equal(after.program.module.get_parameter("2.bias"), trained.module.get_parameter("2.bias"))
    notes = plan_of(session, Context(after)).notes
    assert notes == {"0": {"units": "all"}, "fold": {"warning": "off by one"}}


def test_what_a_session_sees_of_the_training() -> None:
    class Looks(Nothing):
        def begin(self, loop: Loop) -> None:
            self.epochs = loop.history
            self.summed = loop.summed(torch.ones(2)).tolist()

    session = Looks(Context(mlp()))
    trained = train(session)
    assert session.summed == [1.0, 1.0] and tuple(session.epochs) == trained.history


def test_a_context_on_other_weights() -> None:
    context = Context(mlp())
    other = context.copy()
    with torch.no_grad():
        other.get_parameter("0.weight").zero_()
    found = context.on(other)
    assert not found.weight("0.weight").any() and context.weight("0.weight").any()
    assert torch.equal(found.weight("2.weight"), context.weight("2.weight"))
    assert found.weight("2.weight").data_ptr() != other.get_parameter("2.weight").data_ptr()
    sliced = slice_verified(found.coupling, {"0": np.array([1])}).module
    assert sliced.get_parameter("0.weight").shape == (11, 6)
    with pytest.raises(InputError, match="no method 'dependancy'"):
        context.criterion("dependancy")
