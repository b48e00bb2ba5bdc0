"""The written gradient of equation 12: against finite differences, and against autograd on the equation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compress_plugins.shrinking import Dims, Shrink
from compress_plugins.thresholds import signed, signed_all

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


@pytest.mark.parametrize(("shape", "dims"), WHERE)
def test_gradients_are_those_of_finite_differences(shape: tuple[int, ...], dims: Dims) -> None:
    alpha, beta, mask = drawn(shape, dims)
    values = Shrink.apply((dims,), False, alpha, beta, mask)[0]
    assert int((values == 0).sum()) > int((mask == 0).sum()) > 0 and bool(values.any())

    def both(alpha: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = Shrink.apply((dims,), False, alpha, beta, mask)
        return found

    assert torch.autograd.gradcheck(both, (alpha, beta), eps=1e-7, atol=1e-6)
    assert torch.autograd.gradcheck(lambda a, b: both(a, b)[0], (alpha, beta), eps=1e-7, atol=1e-6)
    assert torch.autograd.gradcheck(lambda a, b: both(a, b)[1], (alpha, beta), eps=1e-7, atol=1e-6)


def test_gradients_of_several_at_once() -> None:
    """Some with a mask: finite differences through two tensors of different ranks and their norm."""
    (a, b, mask), (c, d, _) = drawn(*WHERE[1], seed=1), drawn(*WHERE[3], seed=2)
    dims = (WHERE[1][1], WHERE[3][1])
    inputs = (a, c, b, d)
    assert torch.autograd.gradcheck(lambda *t: Shrink.apply(dims, False, *t, mask, None), inputs, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("shape", "dims"), WHERE)
def test_values_and_gradients_are_those_of_the_equation(shape: tuple[int, ...], dims: Dims, rectify: bool) -> None:
    alpha, beta, mask = drawn(shape, dims, seed=3)
    with torch.no_grad():
        alpha.reshape(-1)[0] = 0  # has no sign, and no gradient but its share of none
    values, norm = Shrink.apply((dims,), rectify, alpha, beta, mask)
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
        torch.testing.assert_close(
            found, torch.autograd.grad(other, (alpha, beta), retain_graph=True), rtol=0, atol=1e-12
        )


def test_single_precision_and_other_orders_of_memory() -> None:
    for i, (shape, dims) in enumerate(WHERE):
        alpha, beta, mask = (t.detach().float() for t in drawn(shape, dims, seed=5 + i))
        turned = alpha.mT.contiguous().mT if alpha.dim() == 2 else alpha.contiguous()
        alphas = turned.requires_grad_(), alpha.double().requires_grad_()
        betas = beta.requires_grad_(), beta.detach().double().requires_grad_()
        found = Shrink.apply((dims,), False, alphas[0], betas[0], mask)[0]
        wanted = expression(alphas[1], betas[1], dims, mask.double(), False)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
        slopes = torch.linspace(-1, 1, alpha.numel()).reshape(shape)
        by_hand = torch.autograd.grad((found * slopes).sum(), (alphas[0], betas[0]))
        by_autograd = torch.autograd.grad((wanted * slopes.double()).sum(), (alphas[1], betas[1]))
        for one, other in zip(by_hand, by_autograd, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_in_reduced_precision_the_components_stay_as_they_are() -> None:
    alpha, beta, mask = (t.detach().float() for t in drawn((4, 5), (0, 1)))
    with torch.autocast("cpu", torch.bfloat16):
        values, norm = signed_all([alpha.requires_grad_()], [beta.requires_grad_()], [(0, 1)], [mask])
        (values[0].sum() + norm).backward()
    assert values[0].dtype == norm.dtype == torch.float32 and alpha.grad is not None and alpha.grad.any()
    torch.testing.assert_close(values[0], signed(alpha, beta, (0, 1)) * mask)


def test_a_second_derivative_is_refused() -> None:
    alpha, beta, mask = drawn((6,), (0,))
    norm = Shrink.apply(((0,),), False, alpha, beta, mask)[1]
    (gradient,) = torch.autograd.grad(norm.square(), alpha, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
