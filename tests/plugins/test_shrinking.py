"""The written gradient of equation 12: against finite differences, and against autograd on the equation."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compress_plugins.shrinking import Layout, Part, Shrink
from compress_plugins.thresholds import signed, signed_parts

Dims = tuple[int, ...]
gradcheck = partial(torch.autograd.gradcheck, eps=1e-7, atol=1e-6)
WHERE: list[tuple[tuple[int, ...], Dims]] = [((6,), (0,)), ((4, 5), (0, 1)), ((4, 5), (1,)), ((3, 4, 1, 1), (0, 2, 3))]


def drawn(shape: tuple[int, ...], dims: Dims, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Alphas, every third far below its threshold and the others far above, betas, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.randn(shape, generator=generator, dtype=torch.float64)
    size = torch.where(torch.arange(alpha.numel()).reshape(shape) % 3 == 1, 0.02, 0.5 + alpha.abs())
    beta = torch.zeros([1 if d in dims else n for d, n in enumerate(shape)], dtype=torch.float64)
    beta += torch.logit(torch.tensor(0.3 * beta.numel() / alpha.numel()).double())
    beta += 0.1 * torch.rand(beta.shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(shape, generator=generator) < 0.8).double()
    return (alpha.sign() * size).requires_grad_(), beta.requires_grad_(), mask


def expression(alpha: Tensor, beta: Tensor, dims: Dims, mask: Tensor, rectify: bool) -> Tensor:
    above = alpha.abs() - torch.sigmoid(beta) * alpha.abs().sum(dims, keepdim=True)
    size = functional.relu(above)
    if rectify:
        size = functional.elu(above) + (size - functional.elu(above)).detach()
    return alpha.detach().sign() * size * mask


def shrunk(
    alpha: Tensor, beta: Tensor, dims: Dims, mask: Tensor | None, rectify: bool = False
) -> tuple[Tensor, Tensor]:
    """The values and their norm of one tensor."""
    kept = None if mask is None else mask.reshape(-1)
    part = Part(tuple(alpha.shape), dims)
    values, norm = Shrink.apply(Layout((part,)), rectify, alpha.reshape(-1), beta.reshape(-1), kept, None)
    return values, norm


@pytest.mark.parametrize(("shape", "dims"), WHERE)
def test_gradients_are_those_of_finite_differences(shape: tuple[int, ...], dims: Dims) -> None:
    alpha, beta, mask = drawn(shape, dims)
    values = shrunk(alpha, beta, dims, mask)[0]
    assert int((values == 0).sum()) > int((mask == 0).sum()) > 0 and bool(values.any())
    assert gradcheck(lambda a, b: shrunk(a, b, dims, mask), (alpha, beta))
    for i in (0, 1):
        assert gradcheck(lambda a, b, i=i: shrunk(a, b, dims, mask)[i], (alpha, beta))


def test_gradients_of_several_at_once() -> None:
    """Finite differences through tensors of different ranks and groups, some of which nothing reads."""
    drawn_ = [drawn(*each, seed=i) for i, each in enumerate(WHERE)]
    parts = [Part(*each) for each in WHERE]
    layout = Layout(tuple(parts))
    alpha, beta, mask = (torch.cat([each[i].detach().flatten() for each in drawn_]) for i in range(3))
    inputs = alpha.requires_grad_(), beta.requires_grad_()
    factors = torch.linspace(0, 2, len(alpha), dtype=torch.float64)
    for kept in (mask, None):
        assert gradcheck(lambda a, b, k=kept: Shrink.apply(layout, False, a, b, k, factors), inputs)
        assert gradcheck(lambda a, b, k=kept: Shrink.apply(layout, False, a, b, k, factors)[1:4:2], inputs)
    vectors = Layout(tuple(part for part in parts if part.one))
    ones = [
        torch.cat([each[i].detach().flatten() for each, p in zip(drawn_, parts, strict=True) if p.one]) for i in (0, 1)
    ]
    inputs = ones[0].requires_grad_(), ones[1].requires_grad_()
    assert gradcheck(lambda a, b: Shrink.apply(vectors, False, a, b, None, None), inputs)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("shape", "dims"), WHERE)
def test_values_and_gradients_are_those_of_the_equation(shape: tuple[int, ...], dims: Dims, rectify: bool) -> None:
    alpha, beta, mask = drawn(shape, dims, seed=3)
    with torch.no_grad():
        alpha.reshape(-1)[0] = 0  # has no sign, and no gradient but its share of none
    values, norm = shrunk(alpha, beta, dims, mask, rectify)
    wanted = expression(alpha, beta, dims, mask, rectify)
    torch.testing.assert_close(values, wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(norm, wanted.abs().sum(), rtol=0, atol=1e-13)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for one, other in (
        ((values * weights).sum(), (wanted * weights).sum()),
        ((values * weights).sum() + 0.3 * norm, (wanted * weights).sum() + 0.3 * wanted.abs().sum()),
        (norm, wanted.abs().sum()),
    ):
        found = torch.autograd.grad(one, (alpha, beta), retain_graph=True)
        expected = torch.autograd.grad(other, (alpha, beta), retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_single_precision_and_other_orders_of_memory() -> None:
    for i, (shape, dims) in enumerate(WHERE):
        alpha, beta, mask = (t.detach().float() for t in drawn(shape, dims, seed=5 + i))
        turned = alpha.mT.contiguous().mT if alpha.dim() == 2 else alpha
        alphas = turned.requires_grad_(), alpha.double().requires_grad_()
        betas = beta.requires_grad_(), beta.detach().double().requires_grad_()
        found = shrunk(alphas[0], betas[0], dims, mask)[0]
        wanted = expression(alphas[1], betas[1], dims, mask.double(), False)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
        slopes = torch.linspace(-1, 1, alpha.numel()).reshape(shape)
        by_hand = torch.autograd.grad((found.transpose(0, -1) * slopes.transpose(0, -1)).sum(), (alphas[0], betas[0]))
        by_autograd = torch.autograd.grad((wanted * slopes.double()).sum(), (alphas[1], betas[1]))
        for one, other in zip(by_hand, by_autograd, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_in_reduced_precision_the_components_stay_as_they_are() -> None:
    alpha, beta, mask = (t.detach().float().reshape(-1) for t in drawn((4, 5), (0, 1)))
    alpha.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (values,), norm = signed_parts(alpha, beta, Layout((Part((4, 5), (0, 1)),)), mask)
        (values.sum() + norm).backward()
    assert values.dtype == norm.dtype == torch.float32 and alpha.grad is not None and bool(alpha.grad.any())
    torch.testing.assert_close(values.flatten(), signed(alpha, beta[0]) * mask)


def test_a_second_derivative_is_refused() -> None:
    alpha, beta, mask = drawn((6,), (0,))
    (gradient,) = torch.autograd.grad(shrunk(alpha, beta, (0,), mask)[1].square(), alpha, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
