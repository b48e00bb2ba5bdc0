"""The normal equations against a design matrix that is built by convolving with one-hot kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compress.calibration import normal
from compress.calibration.normal import (
    Layer,
    Moments,
    add_symmetric,
    flat_weight,
    gram_or_rows,
    residuals,
    unflatten,
)

CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

# weight shape, input shape, stride, padding, dilation, groups
CASES: dict[str, tuple[Any, ...]] = {
    "1d": ((4, 3, 3), (6, 3, 9), (1,), (0,), (1,), 1),
    "1d, stride, padding and dilation": ((2, 2, 3), (8, 2, 12), (2,), (1,), (2,), 1),
    "2d": ((4, 3, 3, 3), (8, 3, 6, 6), (1, 1), (0, 0), (1, 1), 1),
    "2d, padding": ((4, 3, 3, 3), (8, 3, 5, 5), (1, 1), (1, 1), (1, 1), 1),
    "2d, uneven everything": ((2, 2, 3, 2), (9, 2, 9, 7), (2, 1), (1, 0), (2, 3), 1),
    "2d, groups": ((6, 2, 3, 3), (8, 4, 6, 6), (1, 1), (1, 1), (1, 1), 2),
    "2d, depthwise": ((4, 1, 3, 3), (6, 4, 6, 6), (2, 2), (1, 1), (1, 1), 4),
    "3d": ((2, 2, 2, 3, 2), (6, 2, 4, 5, 4), (1, 2, 1), (1, 0, 1), (2, 1, 1), 1),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def design(layer: Layer, x: Tensor, group: int) -> Tensor:
    """(samples and positions, features): the layer's answer to each of its weights alone."""
    width = layer.weight.shape[1]
    part = x[:, group * width : (group + 1) * width].double()
    columns = []
    for feature in range(layer.features):
        kernel = torch.zeros(layer.features, dtype=torch.float64)
        kernel[feature] = 1
        kernel = kernel.reshape(1, *layer.weight.shape[1:])
        convolve = CONVOLVE[layer.weight.dim() - 2]
        columns.append(convolve(part, kernel, None, layer.stride, layer.padding, layer.dilation).flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_is_solved_as_lstsq_solves_it(case: str) -> None:
    shape, inputs, stride, padding, dilation, groups = CASES[case]
    layer = Layer(torch.randn(shape), groups, stride, padding, dilation)
    x = torch.randn(inputs)
    y = CONVOLVE[len(stride)](x, layer.weight, None, stride, padding, dilation, groups).square()  # anything
    outputs = shape[0] // groups
    moments = Moments(groups, layer.features, outputs)
    for part in (slice(0, 3), slice(3, None)):  # batch by batch
        moments.add(*layer.rows(x[part], y[part], torch.Generator().manual_seed(0)))
    weight, intercept = moments.solve(flat_weight(layer.weight, groups), 1e-13, intercept=True)
    for group in range(groups):
        rows = design(layer, x, group)
        targets = y[:, group * outputs : (group + 1) * outputs].transpose(0, 1).flatten(1).T.double()
        expected = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1), targets).solution
        torch.testing.assert_close(weight[group], expected[:-1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(intercept[group], expected[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inputs", [(40, 5), (8, 6, 5)])
def test_a_linear_layer_is_solved_as_lstsq_solves_it(inputs: tuple[int, ...]) -> None:
    layer = Layer(torch.randn(3, 5))
    x = torch.randn(inputs)
    y = (x @ layer.weight.T).square()
    moments = Moments(1, 5, 3)
    moments.add(*layer.rows(x, y, torch.Generator()))
    weight, intercept = moments.solve(torch.zeros(1, 5, 3, dtype=torch.float64), 1e-13, intercept=False)
    expected = torch.linalg.lstsq(x.reshape(-1, 5).double(), y.reshape(-1, 3).double()).solution
    torch.testing.assert_close(weight[0], expected, rtol=1e-7, atol=1e-7)
    assert not intercept.any()


def test_residuals_by_hand() -> None:
    x, y = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]]), torch.tensor([[[4.0]], [[5.0]]])
    weight, bias = torch.tensor([[[1.0], [1.0]], [[2.0], [7.0]]]), torch.tensor([[0.5], [1.0]])
    assert residuals(x, y, weight, bias) == (3 + 0.5 - 4) ** 2 + (6 + 1 - 5) ** 2


def test_the_ridge_pulls_towards_the_present_weights() -> None:
    x, y = torch.randn(1, 50, 4, dtype=torch.float64), torch.randn(1, 50, 2, dtype=torch.float64)
    moments = Moments(1, 4, 2)
    moments.add(x, y)
    prior = torch.randn(1, 4, 2, dtype=torch.float64)
    ridge = 0.5
    scale = float(moments.xx[0].diagonal().mean())
    weight, _ = moments.solve(prior, ridge, intercept=False)
    by_hand = torch.linalg.solve(x[0].T @ x[0] + ridge * scale * torch.eye(4), x[0].T @ y[0] + ridge * scale * prior[0])
    torch.testing.assert_close(weight[0], by_hand)
    torch.testing.assert_close(moments.solve(prior, 1e12, intercept=False)[0], prior, rtol=1e-9, atol=1e-9)


def test_inputs_that_are_always_zero_keep_their_weights() -> None:
    x = torch.randn(1, 50, 3, dtype=torch.float64)
    x[:, :, 1] = 0
    moments = Moments(1, 3, 2)
    moments.add(x, torch.randn(1, 50, 2, dtype=torch.float64))
    prior = torch.randn(1, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(moments.solve(prior, 1e-4, intercept=True)[0][0, 1], prior[0, 1])
    dead = Moments(1, 3, 2)
    dead.add(torch.zeros(1, 9, 3, dtype=torch.float64), torch.ones(1, 9, 2, dtype=torch.float64))
    weight, intercept = dead.solve(prior, 1e-4, intercept=True)
    torch.testing.assert_close(weight, prior)
    torch.testing.assert_close(intercept, torch.ones(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("varying", [0, 1, 6])
def test_inputs_that_are_always_the_same_keep_their_weights(varying: int) -> None:
    # What rounding leaves of their deviations is of either sign, and no system to solve
    generator = torch.Generator().manual_seed(0)
    x = (5 * torch.rand(64, generator=generator)).expand(90, 64).clone().double()[None]
    x[..., 64 - varying :] += torch.randn(1, 90, varying, generator=generator).double()
    y = x[..., 64 - varying :].sum(2, keepdim=True).expand(1, 90, 2) + 3
    prior = torch.randn(1, 64, 2, generator=generator).double()
    moments = Moments(1, 64, 2)
    moments.add(x, y)
    for solve in (moments.solve, moments.solve_within):
        weight, intercept = solve(prior, 1e-4, intercept=True)
        assert torch.equal(weight[:, : 64 - varying], prior[:, : 64 - varying])
        torch.testing.assert_close(torch.baddbmm(intercept[:, None], x, weight), y, rtol=1e-3, atol=1e-3)
    held = torch.zeros(1, 64, 2).double()
    assert torch.equal(Moments(1, 64, 2).solve(held, 0.0, intercept=False)[0], held)  # nothing is known at all


def test_of_large_images_the_same_positions_are_drawn_for_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal, "POSITIONS", 7)
    layer = Layer(torch.randn(2, 3, 1, 1), 1, (1, 1), (0, 0), (1, 1))
    x = torch.arange(25.0).reshape(1, 1, 5, 5).expand(4, 3, 5, 5)
    rows, targets = layer.rows(x, x[:, :2], torch.Generator().manual_seed(0))
    assert rows.shape == (1, 28, 3)
    assert targets.shape == (1, 28, 2)
    positions = rows[0, :, 0].reshape(4, 7)
    assert (positions == positions[0]).all()
    assert len(positions[0].unique()) == 7
    torch.testing.assert_close(targets[0, :, 0], rows[0, :, 0])


def test_flat_weights_come_back() -> None:
    weight = torch.randn(6, 2, 3, 3)
    flat = flat_weight(weight, 3)
    assert flat.shape == (3, 18, 2)
    torch.testing.assert_close(flat[1, :, 0], weight[2].flatten().double())
    assert torch.equal(unflatten(flat, weight), weight)


def test_with_zeros_kept_every_output_is_solved_on_the_inputs_that_it_reads() -> None:
    x, y = torch.randn(2, 60, 6, dtype=torch.float64), torch.randn(2, 60, 4, dtype=torch.float64)
    x = x * torch.tensor([1.0, 5, 0.1, 1, 1, 0], dtype=torch.float64) + 2  # of several sizes, one of them constant
    moments = Moments(2, 6, 4)
    moments.add(x, y)
    prior = torch.randn(2, 6, 4, dtype=torch.float64)
    prior[torch.rand(prior.shape) < 0.5] = 0
    prior[0, :, 1] = 0  # an output that reads nothing
    weight, intercept = moments.solve_within(prior, 1e-3, intercept=True)
    assert torch.equal(weight == 0, prior == 0)
    xx, xy = moments.centred()
    for group in range(2):
        pull = 1e-3 * xx[group].diagonal().mean()
        for output in range(4):
            kept = prior[group, :, output] != 0
            own = xx[group][kept][:, kept] + pull * torch.eye(int(kept.sum()), dtype=torch.float64)
            expected = torch.linalg.solve(own, xy[group, kept, output] + pull * prior[group, kept, output])
            torch.testing.assert_close(weight[group, kept, output], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(intercept, moments.shift(weight))


def test_with_nothing_at_zero_both_ways_agree() -> None:
    x, y = torch.randn(1, 60, 5, dtype=torch.float64), torch.randn(1, 60, 3, dtype=torch.float64)
    moments = Moments(1, 5, 3)
    moments.add(x, y)
    prior = torch.randn(1, 5, 3, dtype=torch.float64)
    for intercept in (False, True):
        for one, other in zip(
            moments.solve_within(prior, 1e-4, intercept), moments.solve(prior, 1e-4, intercept), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_gradient_steps_that_run_out_are_no_worse_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(1, 90, 8, dtype=torch.float64), torch.randn(1, 90, 3, dtype=torch.float64)
    moments = Moments(1, 8, 3)
    moments.add(x, y)
    prior = torch.randn(1, 8, 3, dtype=torch.float64)
    prior[0, ::2, 0] = 0
    errors = []
    for rounds in (0, 1, 2, 4, 100):
        monkeypatch.setattr(normal, "ROUNDS", rounds)
        errors.append(residuals(x, y, *moments.solve_within(prior, 1e-9, intercept=True)))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.9 * errors[0]


def test_half_of_a_symmetric_product_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal, "BLOCK", 3)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    scaled = x * torch.rand(5, 1, dtype=torch.float64)
    total = torch.eye(8, dtype=torch.float64).repeat(2, 1, 1)
    add_symmetric(total[:, 1:, 1:], x[..., 1:], scaled[..., 1:], -2)
    expected = torch.eye(8, dtype=torch.float64) - 2 * x.mT @ scaled
    torch.testing.assert_close(total[:, 1:, 1:], expected[:, 1:, 1:])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("batches", [(2, 1), (2, 1, 1), (7, 2)])
def test_rows_are_kept_while_they_are_few(batches: tuple[int, ...], centred: bool) -> None:
    rows = torch.randn(3, sum(batches), 4, dtype=torch.float64)
    found = gram_or_rows(rows.split(batches, 1), centred)
    expected = rows - rows.mean(1, keepdim=True) if centred else rows
    torch.testing.assert_close(found, expected if sum(batches) < 4 else expected.mT @ expected)
