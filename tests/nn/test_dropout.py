from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.nn import ShiftDropout, serlu
from compress.nn.activations import LOWEST

COUNT = 1_000_000


@pytest.fixture
def gaussian() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(COUNT, dtype=torch.float64)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_mean_is_kept_and_variance_as_the_formula_says(gaussian: Tensor, p: float) -> None:
    x = serlu(gaussian)
    y = ShiftDropout(p)(x)
    assert float(y.mean() - x.mean()) == pytest.approx(0, abs=0.01)
    expected = float((x.var() + p * (x.mean() - LOWEST) ** 2) / (1 - p))
    assert float(y.var()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("p", "variance"), [(0.2, 1.586), (0.5, 3.33)])
def test_variance_of_serlu_activations(gaussian: Tensor, p: float, variance: float) -> None:
    assert float(ShiftDropout(p)(serlu(gaussian)).var()) == pytest.approx(variance, rel=0.02)


def test_every_element_is_shifted_or_stretched() -> None:
    """By hand, p = 0.25 and f = -1: dropped (-1 + 0.25) / 0.75 = -1; kept (x + 0.25) / 0.75. Zeros are like others."""
    torch.manual_seed(0)
    x = torch.tensor([0.0, 2.0, -1.0]).repeat(1000, 1)
    y = ShiftDropout(0.25, lowest=-1.0)(x)
    for column, kept in zip(y.T, [1 / 3, 3.0, -1.0], strict=True):
        dropped = (column + 1).abs() < 1e-6
        torch.testing.assert_close(column[~dropped], torch.full((int((~dropped).sum()),), kept))
        assert kept == -1 or 200 < int(dropped.sum()) < 300


def test_identity_in_eval_and_at_p_zero() -> None:
    x = torch.randn(4, 5)
    assert ShiftDropout(0.5).eval()(x) is x
    torch.testing.assert_close(ShiftDropout(0.0)(x), x)


def test_gradient_reaches_kept_elements_only() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1000, requires_grad=True)
    y = ShiftDropout(0.2)(x)
    y.sum().backward()
    assert x.grad is not None
    kept = y > LOWEST + 1e-6
    assert torch.equal(x.grad, kept * 1.25)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_p_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match="p must be"):
        ShiftDropout(p)


@pytest.mark.parametrize(
    ("p", "scale", "offset"), [(0.05, 0.954844, 0.083936), (0.2, 0.878904, 0.309040), (0.5, 0.886405, 0.779194)]
)
def test_alpha_dropout_of_torch_is_the_published_one(gaussian: Tensor, p: float, scale: float, offset: float) -> None:
    """a (x d + alpha' (1 - d)) + b: kept elements lie on a line of slope a and offset b, moments stay."""
    low = -1.7580993408473766
    a = (1 - p + low**2 * p * (1 - p)) ** -0.5
    b = -a * p * low
    assert (a, b) == pytest.approx((scale, offset), abs=1e-6)
    x = torch.selu(gaussian)
    y = nn.AlphaDropout(p)(x)
    kept = (y - (a * low + b)).abs() > 1e-2
    centred = x[kept] - x[kept].mean()
    slope = float((centred * y[kept]).mean() / centred.square().mean())
    assert slope == pytest.approx(a, abs=0.01)
    assert float(y[kept].mean() - slope * x[kept].mean()) == pytest.approx(b, abs=0.01)
    assert float(y.mean()) == pytest.approx(0, abs=0.01)
    assert float(y.var()) == pytest.approx(1, abs=0.01)
