"""What is proved to be the same for every input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.graph import trace
from compress.graph.constants import observe
from compress.graph.double import as_double


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]))
        self.c = nn.Parameter(torch.tensor([0.0, 5.0]))
        self.read = nn.Linear(3, 1)  # whose input is asked for

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(self.function(self, x))
        return out


def steady(function: Any, *shape: int) -> list[float | None]:
    """By channel what ``read`` always reads; None where it varies."""
    module = trace(Function(function).eval(), (torch.randn(2, *shape),)).module
    found = observe(as_double(module), [torch.randn(2, *shape)], module).steady
    values = next(v for n, v in reversed(list(found.items())))
    return [None if v != v else round(v, 6) for v in values.tolist()]


def widened(m: Any, x: Tensor) -> Tensor:
    return F.linear(x, m.w)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: widened(m, x), [None, 0, None]),
        (lambda m, x: F.linear(x * 0 + m.c, m.w), [None, 0, None]),  # 0 * x is not read as a constant
        (lambda m, x: F.linear(x * m.c, m.w), [0, 0, None]),  # a factor that is zero is
        (lambda m, x: torch.sigmoid(widened(m, x)), [None, 0.5, None]),
        (lambda m, x: widened(m, x) + widened(m, m.c), [None, 0, None]),
        (lambda m, x: torch.relu(widened(m, x) - 1e6), [None, 0, None]),  # silent on this input, not proved
        (lambda m, x: torch.cat([widened(m, x)[:, 1:2], x], 1), [0, None, None]),
        (lambda m, x: F.pad(x, (0, 1), value=2.0), [None, None, 2]),
        (lambda m, x: widened(m, x).softmax(1), [None, None, None]),
        (lambda m, x: F.dropout(widened(m, x), 0.5, training=True), [None, None, None]),
        (lambda m, x: widened(m, x).flip(1), [None, 0, None]),
        (lambda m, x: widened(m, x).relu_(), [None, 0, None]),
        (lambda m, x: widened(m, x) + x.amax(1, keepdim=True), [None, None, None]),
        (lambda m, x: torch.full_like(widened(m, x), 3.0), [3, 3, 3]),
    ],
)
def test_channels(function: Any, expected: list[float | None]) -> None:
    assert steady(function, 2) == expected


def overwritten(m: Any, x: Tensor) -> Tensor:
    y = widened(m, x)
    column = y[:, 1:2]
    column.add_(x[:, :1])  # y changes with it
    return y


def overwritten_by_itself(m: Any, x: Tensor) -> Tensor:
    y = widened(m, x)
    y.mul_(torch.zeros(3))
    return y


def test_writing_in_place_is_seen_through_every_name() -> None:
    assert steady(overwritten, 2) == [None, None, None]
    assert steady(overwritten_by_itself, 2) == [0, 0, 0]


def test_constants_at_some_positions_only_are_none_of_a_channel() -> None:
    def edges(m: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(F.conv1d(x, m.w[:, :1, None]))  # channel 1 is 0.5
        return F.pad(y, (1, 1)).transpose(1, 2)  # and 0 at the edges

    assert steady(edges, 1, 4) == [None, None, None]


@pytest.mark.parametrize("pool", [F.max_pool1d, F.avg_pool1d])
def test_pooling(pool: Any) -> None:
    def pooled(m: Any, x: Tensor) -> Tensor:
        y: Tensor = pool(torch.sigmoid(F.conv1d(x, m.w[:, :1, None])), 2)
        return y.transpose(1, 2)

    assert steady(pooled, 1, 4) == [None, 0.5, None]
