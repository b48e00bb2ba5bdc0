"""The gate of standout by itself: its formula, its samples, its gradient, and where it is put."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.graph import Coupling, analyse, trace
from compress.plugin import Context
from compress_plugins.standout_gate import Gate, Setting, find, means

PLAIN = Setting(0.5, 1.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def coupling(module: nn.Module, *shape: int) -> Coupling:
    return analyse(trace(module.eval(), (torch.randn(2, *shape),)))


def layers(module: nn.Module, *shape: int, convolutions: bool = False) -> dict[str, str]:
    """By weight of a layer with a gate its activation."""
    context = Context(coupling(module, *shape))
    found = find(context.copy(), context, convolutions)
    return {place.weight: place.activation.name for place in found}


def test_retention_by_hand() -> None:
    u, bias = torch.tensor([[2.0, -1.0]]), torch.tensor([1.0, 3.0])
    gate = Gate(PLAIN, channels=False, has_bias=True).eval()
    expected = [sigmoid(0.5 * 1 + 1), sigmoid(0.5 * -4 + 1)]
    assert gate.retention(u, bias)[0].tolist() == pytest.approx(expected)
    given = torch.tensor([[10.0, 20.0]])
    assert gate(given, u, bias)[0].tolist() == pytest.approx([10 * expected[0], 20 * expected[1]])


def test_beta_times_the_sum_of_the_inputs() -> None:
    gate = Gate(Setting(0.5, 2.0, by_input=True), channels=False, has_bias=True)
    u, bias, x = torch.tensor([[2.0, -1.0]]), torch.tensor([1.0, 3.0]), torch.tensor([[0.25, 0.5, -0.5]])
    expected = [sigmoid(0.5 * 1 + 0.5), sigmoid(0.5 * -4 + 0.5)]
    assert gate.retention(u, bias, x)[0].tolist() == pytest.approx(expected)


def test_channels_by_their_mean() -> None:
    u = torch.tensor([[[[1.0, 3.0]], [[-2.0, 0.0]]]])  # (1, 2, 1, 2)
    gate = Gate(PLAIN, channels=True, has_bias=True)
    p = gate.retention(u, torch.tensor([1.0, 0.0]))
    assert p.shape == (1, 2, 1, 1)
    assert p.flatten().tolist() == pytest.approx([sigmoid(0.5 + 1), sigmoid(-0.5 + 1)])
    torch.manual_seed(0)
    kept = gate.train()(torch.ones(500, 2, 3, 3), u.expand(500, 2, 1, 2), torch.tensor([1.0, 0.0]))
    assert torch.equal(kept, kept[:, :, :1, :1].expand_as(kept))  # a channel goes as a whole
    assert kept[:, :, 0, 0].mean(0).tolist() == pytest.approx(p.flatten().tolist(), abs=0.07)


@settings(deadline=None)
@given(st.floats(-3, 3))
def test_without_alpha_it_is_dropout(beta: float) -> None:
    gate = Gate(Setting(0.0, beta), channels=False, has_bias=False)
    p = gate.retention(torch.randn(5, 4))
    torch.testing.assert_close(p, torch.full((5, 4), sigmoid(beta)))
    if beta == 0:
        assert torch.equal(gate.eval()(torch.ones(5, 4), torch.randn(5, 4)), torch.full((5, 4), 0.5))


def test_samples_have_the_expectation_as_their_mean() -> None:
    torch.manual_seed(0)
    u = torch.randn(1, 16)
    a = u.relu()
    gate = Gate(PLAIN, channels=False, has_bias=False)
    sampled = gate.train()(a.expand(4000, 16), u.expand(4000, 16))
    assert bool(((sampled == 0) | (sampled == a)).all())  # no inverted scaling
    expected = gate.eval()(a, u)
    assert torch.equal(expected, gate(a, u))
    assert float((sampled.mean(0) - expected).abs().max()) < 0.05
    one, other = gate.train()(a, u), gate(a, u)
    assert not torch.equal(one, other)


def test_no_gradient_through_the_retention() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    u = x @ weight.t()
    gate = Gate(PLAIN, channels=False, has_bias=False).train()
    torch.manual_seed(1)
    (gradient,) = torch.autograd.grad(gate(u.relu(), u).square().sum(), weight)
    torch.manual_seed(1)
    u = x @ weight.t()
    mask = torch.rand(6, 4) < torch.sigmoid(0.5 * u.detach() + 1)
    (expected,) = torch.autograd.grad((u.relu() * mask).square().sum(), weight)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_what_is_counted() -> None:
    gate = Gate(Setting(0.0, 0.0), channels=False, has_bias=False)
    a = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    gate.train()(a, a)
    gate(a[:1], a[:1])
    gate.eval()(a, a)  # not in evaluation
    p, size = means(gate.take())
    assert p.tolist() == [0.5, 0.5] and size.tolist() == pytest.approx([5 / 3, 4 / 3])
    gate.train().counts = "never"
    gate(a, a)
    assert float(gate.take()) == 0
    sequence = Gate(Setting(0.0, 0.0), channels=False, has_bias=False).train()
    sequence(torch.ones(2, 5, 3), torch.ones(2, 5, 3))
    assert sequence.take().tolist() == [5.0, 5.0, 5.0, 10.0, 10.0, 10.0, 10.0]


def test_half_precision_is_widened() -> None:
    gate = Gate(PLAIN, channels=False, has_bias=False)
    u = torch.randn(3, 4).bfloat16()
    assert gate.retention(u).dtype == torch.float32 and gate.eval()(u, u).dtype == torch.bfloat16
    assert gate.retention(u.double()).dtype == torch.float64


class Chain(nn.Module):
    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.one, self.between, self.two = nn.Linear(4, 8), nn.Sequential(*between), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.between(self.one(x)))
        return out


@pytest.mark.parametrize(
    ("between", "activation"),
    [
        ([nn.ReLU()], "relu_default"),
        ([nn.BatchNorm1d(8), nn.LeakyReLU(inplace=True)], "leaky_relu__default"),
        ([nn.Dropout(0.2), nn.GELU()], "gelu_default"),
        ([nn.Tanh(), nn.ReLU()], "tanh_default"),  # the first one counts
        ([nn.PReLU()], "prelu_default"),
        ([], None),
        ([nn.LayerNorm(8), nn.ReLU()], None),
    ],
)
def test_where_it_sits(between: list[nn.Module], activation: str | None) -> None:
    assert layers(Chain(*between), 4) == ({} if activation is None else {"one.weight": activation})


class Twice(nn.Module):
    """Something else reads what the layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        u = self.one(x)
        out: Tensor = self.two(u.relu() + u)
        return out


class Scaled(nn.Module):
    """Linear layers that scale the channels of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite, self.head = (
            nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        out: Tensor = self.head((x * scale[:, :, None, None]).mean((2, 3)))
        return out


def test_layers_that_get_none() -> None:
    assert layers(Twice(), 4) == {}
    assert list(layers(Scaled(), 1, 5, 5)) == ["squeeze.weight"]  # the excited channels are the convolution's
    assert list(layers(Scaled(), 1, 5, 5, convolutions=True)) == ["conv.weight", "squeeze.weight", "excite.weight"]


def test_globs_choose() -> None:
    network = coupling(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), 4)

    def weights(**given: Any) -> list[str]:
        context = Context(network, **given)
        return [place.weight for place in find(context.copy(), context, False)]

    assert weights() == ["0.weight", "2.weight"]
    assert weights(only=("2",)) == ["2.weight"] and weights(exclude=("2",)) == ["0.weight"]
