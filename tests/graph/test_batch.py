from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.graph.batch import batch_size, with_batch
from compress.graph.trace import trace


def tokens(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    t = m.i(x.view(b, c, h * w).transpose(1, 2)) + torch.zeros(b, h * w, 6)
    heads = t.view(b, h * w, 2, 3).permute(0, 2, 1, 3).reshape(b * 2, h * w, 3)
    return heads.view(b, 2, h * w, 3).sum((1, 2))


def test_sizes_that_grow_with_the_batch_are_computed(lab: Any) -> None:
    module = lab.network(tokens, i=nn.Linear(4, 6))
    program = trace(module, (torch.randn(2, 4, 3, 3),))
    assert program.dynamic_batch
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 3, 3)
        assert torch.allclose(program.module(x), module(x))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.i(x.view(2, 4)),
        lambda m, x: m.i(x)[: max(2, x.shape[0] // 2)],
        lambda m, x: sum(m.i(row) for row in x),
        lambda m, x: m.i(x) / (1.0 / x.shape[0]),
        lambda m, x: m.i(x) + torch.tensor([[float(x.shape[0])]]),
        lambda m, x: m.i(x)[: x.shape[0] - 1],
    ],
    ids=["written out", "not proportional", "loop", "a number", "a constant", "one less"],
)
def test_a_batch_that_shapes_the_code_stays_fixed(lab: Any, forward: Any) -> None:
    module, x = lab.network(forward, i=nn.Linear(4, 3)), torch.randn(2, 4)
    program = trace(module, (x,))
    assert not program.dynamic_batch
    assert torch.equal(program.module(x), module(x))


def test_one_recording_where_no_other_batch_is_wanted() -> None:
    assert not trace(nn.Linear(3, 2), (torch.randn(2, 3),), any_batch=False).dynamic_batch


def test_batch_of_several_inputs() -> None:
    inputs = [torch.zeros(2, 3), torch.zeros(()), torch.zeros(5, 2), torch.zeros(2, dtype=torch.long)]
    assert batch_size(inputs) == 2
    assert [tuple(x.shape) for x in with_batch(inputs, 7)] == [(7, 3), (), (5, 2), (7,)]
    assert batch_size([torch.zeros(1, 3)]) is None
