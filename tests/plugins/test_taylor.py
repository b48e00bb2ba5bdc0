from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compress.errors import InputError, ModelError
from compress.graph import analyse, trace
from compress.plugin import Budget, Context, make_plan
from compress_plugins.taylor import Taylor


def data(x: torch.Tensor, y: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(train=SimpleNamespace(inputs=x, targets=y))


def net() -> nn.Sequential:
    first, second = nn.Linear(1, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [2.0]]))
        second.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    return nn.Sequential(first, second).eval()


def test_scores_by_hand() -> None:
    """For x = 1 of class 0: hidden (1, 2), scores (1, -2), probabilities (s, 1 - s) with s = 1 / (1 + e^-3).

    The gradient of the scores is (s - 1, 1 - s) =: (-d, d). Hidden: (-d, -d). First layer: -d * 1 and -d * 2 by
    weight; second by column: -d * 1 * 1 = -d, and d * 2 * -1 = -2 d (its zeros add nothing).
    """
    context = Context(analyse(trace(net(), (torch.randn(2, 1),))), data=data(torch.ones(1, 1), torch.tensor([0])))
    d = 1 - 1 / (1 + torch.exp(torch.tensor(-3.0))).item()
    scores = Taylor().score(context.groups[0], context)
    assert scores.tolist() == pytest.approx([2 * d, 4 * d], rel=1e-5)


def test_the_mean_over_batches_of_magnitudes() -> None:
    """Every sample pulls the same way, in either of two batches."""
    x, y = torch.ones(64, 1), torch.zeros(64, dtype=torch.int64)
    context = Context(analyse(trace(net(), (torch.randn(2, 1),))), data=data(x, y))
    same = Taylor().score(context.groups[0], context)
    assert same.tolist() == pytest.approx([2 * 0.04742587, 4 * 0.04742587], rel=1e-4)


def test_single_weights_by_hand() -> None:
    """As above by weight: the first layer's gradients are -d and -d times 1 and 2, the second's -d, -2d and d, 2d."""
    context = Context(
        analyse(trace(net(), (torch.randn(2, 1),))), Budget("ratio", 0.5), "weight",
        data=data(torch.ones(1, 1), torch.tensor([0])),
    )  # fmt: skip
    d = 1 - 1 / (1 + torch.exp(torch.tensor(-3.0))).item()
    first, second = (Taylor().score_weights(n, context.weight(n), context) for n in ("0.weight", "1.weight"))
    assert first.flatten().tolist() == pytest.approx([d, 2 * d], rel=1e-5)
    assert second.flatten().tolist() == pytest.approx([d, 0, 0, 2 * d], rel=1e-5)
    masks = make_plan(Taylor(layers="together"), context).masks
    assert masks["0.weight"].int().tolist() == [[0], [1]]  # zeros first, then the first weight of the first layer
    assert masks["1.weight"].int().tolist() == [[1, 0], [0, 1]]


def test_nothing_is_left_in_the_network() -> None:
    module = net()
    context = Context(analyse(trace(module, (torch.randn(2, 1),))), data=data(torch.ones(9, 1), torch.zeros(9).long()))
    make_plan(Taylor(), context)
    assert all(p.grad is None for p in module.parameters())


def test_what_it_needs() -> None:
    coupling = analyse(trace(net(), (torch.randn(2, 1),)))
    with pytest.raises(InputError, match="training samples"):
        make_plan(Taylor(), Context(coupling, Budget("ratio", 0.5)))
    images = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    seen = Context(
        analyse(trace(images, (torch.randn(2, 1, 3, 3),))), data=data(torch.randn(4, 1, 3, 3), torch.zeros(4).long())
    )
    with pytest.raises(ModelError, match="no class scores"):
        make_plan(Taylor(), seen)
    with pytest.raises(ValueError, match="samples"):
        Taylor(samples=0)
