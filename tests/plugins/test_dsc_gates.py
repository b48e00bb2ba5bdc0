"""Gates of dsc by hand: what they multiply, what gradient they get, what they cost, and what goes by them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from compress_plugins.dsc import DSC
from compress_plugins.dsc_columns import scores
from compress_plugins.dsc_layers import GATE, ShortCircuit, short_circuits
from tests.plugins.dsc_networks import mlp, session_of

RATES = {"0": [0.7, 0.3, 0.5, 0.9], "2": [0.2, 0.6, 0.4, 0.8, 0.1, 0.51, 0.49]}  # of 4 -> 3 -> 2


def with_rates(method: DSC) -> tuple[Any, dict[str, ShortCircuit]]:
    """A session whose gates are open that far, and its layers."""
    session = session_of(method, mlp(4, 3, 2))
    modules = short_circuits(session.network)
    for name, rates in RATES.items():
        gates = modules[name].gates
        assert gates is not None
        with torch.no_grad():
            gates.copy_(torch.logit(torch.tensor(rates)))
    return session, modules


def slopes(module: ShortCircuit) -> tuple[Tensor, Tensor]:
    """What the inputs are multiplied with, and the derivative of its sum by the gates."""
    assert module.gates is not None
    scale = module.scale()
    return scale.detach(), torch.autograd.grad(scale.sum(), module.gates)[0]


@pytest.mark.parametrize("gates", ["effective", "contribution", "threshold"])
def test_gates_multiply(gates: Any) -> None:
    rates = torch.tensor(RATES["2"])
    scale, slope = slopes(with_rates(DSC(gates=gates))[1]["2"])
    torch.testing.assert_close(scale, rates)
    torch.testing.assert_close(slope, rates * (1 - rates))


def test_straight_through_a_threshold() -> None:
    """Forward 1[s >= tau] s, backward as if it were s."""
    rates = torch.tensor(RATES["2"])
    scale, slope = slopes(with_rates(DSC(gates="ste", tau=0.45))[1]["2"])
    torch.testing.assert_close(scale, torch.tensor([0, 0.6, 0, 0.8, 0, 0.51, 0.49]))
    torch.testing.assert_close(slope, rates * (1 - rates))


def test_straight_through_a_draw() -> None:
    """0 or 1 in training, with the gate as probability; the gate in evaluation, and once inputs are chosen."""
    _, modules = with_rates(DSC(gates="bernoulli"))
    module, rates = modules["2"].train(), torch.tensor(RATES["2"])
    torch.manual_seed(0)
    drawn = torch.stack([slopes(module)[0] for _ in range(4000)])
    assert set(drawn.round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert float((drawn.mean(0) - rates).abs().max()) < 0.03
    torch.testing.assert_close(slopes(module)[1], rates * (1 - rates))
    module.chosen = True
    torch.testing.assert_close(slopes(module)[0], rates)
    module.chosen = False
    torch.testing.assert_close(slopes(module.eval())[0], rates)


def test_the_norms_of_the_gates_are_not_squared() -> None:
    session, _ = with_rates(DSC(strength=0.25))
    found = session.penalty(SimpleNamespace(network=session.network))
    assert float(found.detach()) == pytest.approx(0.25 * sum(sum(r * r for r in v) ** 0.5 for v in RATES.values()))
    assert session_of(DSC(strength=0.0), mlp(4, 3, 2)).penalty(SimpleNamespace(network=session.network)) is None


def test_scores_by_hand() -> None:
    """Gate times norm of the column, times root mean square of the feature; new columns are zero at first."""
    session, modules = with_rates(DSC())
    weight = session.network.get_parameter("2.weight")
    with torch.no_grad():
        weight.copy_(torch.tensor([[3.0, 0.0, 1.0], [4.0, 2.0, 0.0]]))
        older = modules["2"].older
        assert older is not None and not older.any() and GATE == 1
        older[0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        first = session.network.get_parameter("0.weight")
        first.zero_()
        session.network.get_parameter("0.bias").copy_(torch.tensor([2.0, -1.0, 0.5]))
    effective = torch.tensor([0.2 * 1, 0.6 * 2, 0.4 * 3, 0.8 * 4, 0.1 * 5, 0.51 * 2, 0.49 * 1])
    found = scores(session.network, "effective", None)["2"]
    torch.testing.assert_close(found.float(), effective)
    samples = torch.tensor([[1.0, 0.0, 3.0, -2.0], [7.0, 0.0, 4.0, 2.0]])
    sizes = torch.tensor([5.0, 0.0, 12.5**0.5, 2.0, 2.0, 0.0, 0.5])  # relu(bias) behind the first layer
    torch.testing.assert_close(scores(session.network, "contribution", samples)["2"].float(), effective * sizes)
    assert scores(session.network, "threshold", None)["0"].tolist() == pytest.approx(RATES["0"])


def test_gates_below_the_threshold_go() -> None:
    """What is at it stays; so does the best input of a layer, and of what a layer gives the feature best read."""
    session, modules = with_rates(DSC(gates="threshold", tau=0.5))
    with torch.no_grad():
        modules["0"].gates[2].fill_(0.0)  # type: ignore[index]  # sigma(0) is 0.5 without rounding
    reached = session.goal.choose(SimpleNamespace(network=session.network))
    assert modules["0"].kept.tolist() == [1, 0, 1, 1]
    assert modules["2"].kept.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert reached == pytest.approx(5 / 11)
    session, modules = with_rates(DSC(gates="threshold", tau=0.95))
    session.goal.choose(SimpleNamespace(network=session.network))
    assert modules["0"].kept.tolist() == [0, 0, 0, 1] and modules["2"].kept.tolist() == [0, 0, 0, 1, 0, 1, 0]
