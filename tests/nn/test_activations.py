from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from compress.nn import SERLU, serlu
from compress.nn.activations import LOWEST


def moment(f: Callable[[float], float]) -> float:
    """E f(x) of a unit Gaussian, by numerical integration on both sides of the kink at 0."""

    def integrand(x: float) -> float:
        return f(x) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    return sum(integrate.quad(integrand, a, b, epsabs=1e-12)[0] for a, b in ((-12, 0), (0, 12)))


def at(x: float) -> float:
    return float(serlu(torch.tensor(x, dtype=torch.float64)))


def test_a_unit_gaussian_stays_one() -> None:
    mean = moment(at)
    assert mean == pytest.approx(0, abs=1e-6)
    assert moment(lambda x: at(x) ** 2) - mean**2 == pytest.approx(1, abs=1e-5)


def test_selu_of_torch_too() -> None:
    def selu(x: float) -> float:
        return float(torch.selu(torch.tensor(x, dtype=torch.float64)))

    assert moment(selu) == pytest.approx(0, abs=1e-9)
    assert moment(lambda x: selu(x) ** 2) == pytest.approx(1, abs=1e-9)


def test_values() -> None:
    assert at(2.0) == pytest.approx(2 * 1.07862)
    assert at(0.0) == 0
    assert at(-2.0) == pytest.approx(-2 * 1.07862 * 2.90427 * math.exp(-2))


def test_lowest_value() -> None:
    x = torch.linspace(-20, 5, 25_001, dtype=torch.float64)
    y = serlu(x)
    assert float(x[y.argmin()]) == pytest.approx(-1, abs=1e-3)
    assert float(y.min()) == pytest.approx(LOWEST, abs=1e-9)
    assert pytest.approx(-1.15242, abs=5e-6) == LOWEST


@pytest.mark.parametrize("value", [100.0, -100.0, 1e30, -1e30])
def test_large_inputs_stay_finite(value: float) -> None:
    x = torch.tensor(value, requires_grad=True)
    y = serlu(x)
    y.backward()
    assert x.grad is not None
    assert bool(y.isfinite()) and bool(x.grad.isfinite())
    assert float(y.detach()) == pytest.approx(max(1.07862 * value, 0.0), rel=1e-6)


def test_gradient() -> None:
    x = torch.tensor([-9.0, -2.0, -1.0, -0.1, 0.1, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SERLU(), x)


def test_variance_holds_through_many_layers() -> None:
    """The self-normalising claim: 20 layers of 256 with weights of variance 1 / 256."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(20):
        linear = nn.Linear(256, 256, bias=False)
        nn.init.normal_(linear.weight, std=1 / 16, generator=generator)
        layers += [linear, SERLU()]
    x: Tensor = torch.randn(512, 256, generator=generator)
    with torch.no_grad():
        y = nn.Sequential(*layers)(x)
    assert abs(float(y.mean())) < 0.1
    assert 0.7 < float(y.var()) < 1.3
