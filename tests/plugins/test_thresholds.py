"""Learned thresholds, the norms beside them and the proximal steps: by hand, and against autograd's own derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from compress_plugins import thresholds as th


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(n: int, target: float = 0.5) -> tuple[Tensor, Tensor]:
    return torch.full((n,), th.start_alpha(n, target)), torch.tensor(th.start_beta(n))


@pytest.mark.parametrize("n", [1, 2, 12, 64, 512, 4096])
def test_all_components_start_at_the_target(n: int) -> None:
    alpha, beta = start(n)
    assert float((th.signed(alpha, beta) - 0.5).abs().max()) <= 1e-7
    assert float(torch.sigmoid(beta.double())) == pytest.approx(1 / (n * (n + 1)), rel=1e-6)
    assert float((th.signed(*start(n, 1.25)) - 1.25).abs().max()) <= 2e-7


@pytest.mark.parametrize("n", [2, 12, 64, 512, 4096])
def test_the_printed_sign_of_beta_takes_everything(n: int) -> None:
    alpha, beta = start(n)
    assert not th.signed(alpha, -beta, guard=False).any()
    assert th.signed(alpha, -beta).all()  # the largest stays, and all are the largest


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-3, 3).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=1, max_size=20),
    rows=st.integers(1, 3),
)
def test_trained_values_are_where_a_group_starts(values: list[float], rows: int) -> None:
    one = torch.tensor(values, dtype=torch.float64)
    if not one.any():
        with pytest.raises(ValueError, match="all components of a group are zero"):
            th.alpha_of(one)
        return
    wanted = torch.stack([(i + 1) * one for i in range(rows)])
    alpha, beta = th.alpha_of(wanted, 1), torch.tensor(th.start_beta(len(values)), dtype=torch.float64)
    got = th.signed(alpha, beta, 1)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(got == 0, wanted == 0) and bool((alpha != 0).all())
    assert torch.equal(alpha.sign()[wanted != 0], wanted.sign()[wanted != 0])


def test_the_derivatives_of_the_signed_form() -> None:
    """d a_i / d alpha_j = act_i (delta_ij - s sign_i sign_j), d a_i / d beta = -act_i sign_i s (1 - s) |alpha|."""
    alpha, beta = drawn(9), torch.tensor(-2.0, dtype=torch.float64)
    s, sign = torch.sigmoid(beta), alpha.sign()
    active = (alpha.abs() > s * alpha.abs().sum()).double()
    assert 0 < int(active.sum()) < 9
    by_alpha, by_beta = torch.autograd.functional.jacobian(th.signed, (alpha, beta))
    wanted = active[:, None] * (torch.eye(9, dtype=torch.float64) - s * sign[:, None] * sign)
    torch.testing.assert_close(by_alpha, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(by_beta, -active * sign * s * (1 - s) * alpha.abs().sum(), rtol=0, atol=1e-10)
    by_norm = torch.autograd.functional.jacobian(lambda a: th.l1(th.signed(a, beta)), alpha)
    torch.testing.assert_close(by_norm, sign * (active - s * active.sum()), rtol=0, atol=1e-10)


def test_at_most_so_many_components_survive() -> None:
    beta = torch.tensor(-2.0, dtype=torch.float64)
    most = math.ceil(1 / float(torch.sigmoid(beta))) - 1
    counts = [int((th.signed(drawn(200, seed=i), beta) != 0).sum()) for i in range(20)]
    assert 0 < max(counts) <= most


def test_a_threshold_above_all_components() -> None:
    alpha, high = torch.tensor([0.3, 0.1, -0.2], requires_grad=True), torch.tensor(5.0, requires_grad=True)
    kept, none = th.signed(alpha, high), th.signed(alpha, high, guard=False)
    assert (kept != 0).tolist() == [True, False, False] and not none.any()
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(kept.sum() + none.sum(), (alpha, high)))


@pytest.mark.parametrize("rectify", [False, True])
def test_a_group_of_zeros(rectify: bool) -> None:
    """Nothing divides by its sum, and no power of it has an infinite slope."""
    alpha, beta = torch.zeros(3, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    values = th.signed(alpha, beta, rectify=rectify)
    assert not values.any()
    loss = values.sum() + th.lp(values) + th.lp(values, eps=1e-3) + th.l21(values) + th.l12(values)
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, (alpha, beta)))


def test_p_norms_of_components_some_of_which_are_zero() -> None:
    alpha, beta = drawn(9).requires_grad_(), torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    values = th.signed(alpha, beta)
    assert 0 < int((values == 0).sum()) < 9
    for rectify in (False, True):
        loss = th.lp(th.signed(alpha, beta, rectify=rectify), 0.5)
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, (alpha, beta)))


def test_the_rectified_gradient() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.7], requires_grad=True)
    y = th.rectified(x)
    assert torch.equal(y, functional.relu(x))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([0.1353, 0.6065, 1, 1]), atol=5e-5, rtol=0)
    alpha, beta = torch.tensor([1.0, -0.01], requires_grad=True), torch.tensor(-2.0)
    plain, through = (torch.autograd.grad(th.signed(alpha, beta, rectify=r)[1], alpha)[0] for r in (False, True))
    assert not plain.any() and float(through[1]) > 0.5


def test_norms_by_hand() -> None:
    a = torch.tensor([[3.0, -4.0], [0.0, 0.0]], requires_grad=True)
    found = [norm.item() for norm in (th.l1(a), th.l21(a, 1), th.l12(a, 1), th.l12(a), th.lp(a, 0.5, 1))]
    assert found == pytest.approx([7, 5, 24.5, 24.5, (3**0.5 + 2) ** 2])
    for norm in (th.l1(a), th.l21(a, 1), th.l12(a, 1), th.lp(a, 0.5, 1), th.lp(a, 0.5, 1, eps=1e-3)):
        (gradient,) = torch.autograd.grad(norm, a)
        assert bool(gradient.isfinite().all()) and bool(gradient[0].all()) and not gradient[1].any()


@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_p_norm_tells_one_from_many(n: int) -> None:
    one_hot = torch.eye(n)[0].requires_grad_()
    assert th.lp(one_hot).item() == 1 and th.lp(torch.full((n,), 1 / n)).item() == pytest.approx(n, rel=1e-5)
    assert bool(torch.autograd.grad(th.lp(one_hot), one_hot)[0].isfinite().all())
    nothing = torch.zeros(n, requires_grad=True)
    assert not torch.autograd.grad(th.lp(nothing), nothing)[0].any()


def test_proximal_steps_by_hand() -> None:
    v = torch.tensor([3.0, -1.0, 0.5, 0.1], dtype=torch.float64)
    assert th.prox_l1(v, 0.5).tolist() == [2.5, -0.5, 0, 0]
    pairs = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(th.prox_l21(pairs, 1.0, 1), torch.tensor([[2.4, 3.2], [0, 0], [0, 0]]))
    found = {}
    for variant, wanted in (("printed", [2.08, -0.08, 0, 0]), ("exact", [2.4286, -0.4286, 0, 0])):
        w = th.prox_l12(v, 0.2, variant=variant)  # type: ignore[arg-type]
        torch.testing.assert_close(w, torch.tensor(wanted, dtype=torch.float64), atol=5e-5, rtol=0)
        found[variant] = float(0.5 * (w - v).square().sum() + 0.2 * th.l12(w))
    assert found == pytest.approx({"printed": 1.443, "exact": 1.2729}, abs=5e-4)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), step=st.floats(1e-3, 3), n=st.integers(1, 8))
def test_the_exact_steps_are_minima(seed: int, step: float, n: int) -> None:
    v = drawn(3, n, seed=seed)
    others = drawn(40, 3, n, seed=seed + 1) * torch.logspace(-6, 0, 40, dtype=torch.float64).reshape(-1, 1, 1)
    for prox, norm in (
        (th.prox_l1(v, step), th.l1),
        (th.prox_l21(v, step, 1), lambda w: th.l21(w, 1)),
        (th.prox_l12(v, step, 1), lambda w: th.l12(w, 1)),
    ):
        least = float(0.5 * (prox - v).square().sum() + step * norm(prox))
        assert all(float(0.5 * (prox + d - v).square().sum() + step * norm(prox + d)) >= least - 1e-12 for d in others)
    columns = th.prox_l12(v.T.reshape(n, 3, 1), step, (0, 2))
    torch.testing.assert_close(columns[:, :, 0].T, th.prox_l12(v, step, 1))


def test_a_threshold_along_dims() -> None:
    alpha = drawn(4, 6)
    rows = torch.tensor([[-2.0], [-1.5], [-3.0], [-2.5]], dtype=torch.float64)
    together = th.signed(alpha, rows, 1)
    for i in range(4):
        torch.testing.assert_close(together[i], th.signed(alpha[i], rows[i, 0]))
