from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from compress.calibration.layers import Layers, is_layer, op_of
from compress.graph import trace
from compress.recover.window import Window, window
from compress.testing import example_networks


def windows(net: nn.Module, x: Tensor) -> dict[str, Window]:
    module = trace(net.eval(), (x,)).module
    layers, nodes = Layers(module), list(module.graph.nodes)

    def solvable(node: fx.Node) -> bool:
        return not layers.obstacle(node)

    return {layers.name(n).removesuffix(".weight"): window(nodes, n, solvable) for n in nodes if is_layer(n)}


class Block(nn.Module):
    """A residual block; its shortcut is a convolution, if wanted."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)
        self.side = nn.Conv2d(3, 3, 1) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.norm(self.two(torch.relu(self.one(x))))
        x = x if self.side is None else self.side(x)
        out: Tensor = self.head(torch.relu(x + y))
        return out


def names(found: Window) -> list[str]:
    return [n.name for n in found.layers]


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_two_layers_of_a_block(shortcut: bool) -> None:
    found = windows(Block(shortcut), torch.randn(2, 2, 4, 4))
    two = found["two"]
    assert len(two.layers) == 2
    assert [len(s.users) for s in two.inputs] == [2]  # what the block reads, its shortcut does too
    # The sum is known behind the norm, unless another layer comes between
    assert op_of(two.end) == ("aten::batch_norm" if shortcut else "aten::add")
    assert two.rectified is not shortcut
    assert len(found["stem"].layers) == 1
    assert len(found["one"].layers) == 1  # the stem's output is read by the shortcut, too


def test_layers_that_nothing_else_reads_are_all_in() -> None:
    found = windows(Block(True), torch.randn(2, 2, 4, 4))
    assert len(found["head"].layers) == 3  # both summands
    assert found["head"].end is found["head"].layers[-1]


def test_attention_is_between_its_layers() -> None:
    net, x = next((net, x) for name, net, (x,) in example_networks() if name == "attention")
    found = windows(net, x)["out"]
    assert len(found.layers) == 2
    assert any("attention" in op_of(n) for n in found.nodes)
    assert op_of(found.end) == "aten::add"


def test_a_layer_that_may_not_be_solved_for_is_read_as_it_is() -> None:
    module = trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), (torch.randn(2, 2),)).module
    nodes = list(module.graph.nodes)
    _, relu, last = (n for n in nodes if n.op == "call_function")
    found = window(nodes, last, lambda node: node is last)
    assert found.layers == (last,)
    assert found.nodes == (last,)
    assert found.inputs == (relu,)
