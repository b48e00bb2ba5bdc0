"""Sessions of retrain methods: what the core lets them do, and what it does not let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import InputError, PluginError
from compress.graph import analyse, slice_verified
from compress.plugin import Context, Loop, Plan, Session
from compress.retrain import folded, plan_of, start_session
from compress.testing import check_plugin
from tests.sessions import Nothing, Plain, mlp, train


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
