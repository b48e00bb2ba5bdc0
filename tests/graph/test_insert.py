"""Modules between the operations of a traced network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from compress.graph import insert_module, trace


class Times(nn.Module):
    """Multiplies by a number that is trained; in training by twice that."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor * (2 if self.training else 1)


class Plus(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        return y.sin() + y


def network() -> fx.GraphModule:
    return trace(Residual(), (torch.randn(2, 4),)).module


def node(network: fx.GraphModule, name: str) -> fx.Node:
    return next(node for node in network.graph.nodes if node.name.startswith(name))


def test_all_readers_get_what_the_module_makes_of_it() -> None:
    changed, x = network(), torch.randn(3, 4)
    insert_module(changed, "times", Times(), node(changed, "relu"))
    y = 3 * x.relu()
    torch.testing.assert_close(changed.eval()(x), y.sin() + y)
    torch.testing.assert_close(changed.train()(x), (2 * y).sin() + 2 * y)
    assert "times.factor" in dict(changed.named_parameters())


def test_one_reader_of_several() -> None:
    changed, x = network(), torch.randn(3, 4)
    insert_module(changed, "times", Times(), node(changed, "relu"), users=[node(changed, "sin")])
    y = x.relu()
    torch.testing.assert_close(changed.eval()(x), (3 * y).sin() + y)


def test_what_other_nodes_give_as_well() -> None:
    changed, x = network(), torch.randn(3, 4)
    insert_module(changed, "plus", Plus(), node(changed, "relu"), node(changed, "input"))
    y = x.relu() + x
    torch.testing.assert_close(changed(x), y.sin() + y)


def test_a_name_that_is_taken() -> None:
    changed = network()
    insert_module(changed, "times", Times(), node(changed, "relu"))
    with pytest.raises(ValueError, match="times already"):
        insert_module(changed, "times", Times(), node(changed, "sin"))
