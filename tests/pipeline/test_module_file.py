from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import analyse, slice_graph, slice_module, trace
from compress.pipeline.module_file import module_file
from compress.report import Argument


class Tied(nn.Module):
    """A hidden layer whose norm has a buffer that no state dict holds, and a weight under two names."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = nn.Parameter(torch.eye(6) + 0.1)
        self.again = self.first
        self.register_buffer("mask", torch.tensor([1.0, 0.5, 1.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.again(x))) * self.mask


def test_changed_arguments_are_named_and_the_file_is_loaded() -> None:
    torch.manual_seed(0)
    net, x = Tied().eval(), torch.randn(2, 4)
    coupling = analyse(trace(net, (x,)))
    group = max(coupling.groups, key=lambda each: each.size)
    alive = coupling.alive({group.name: np.array([1, 4])})
    network = slice_graph(coupling, alive)
    made = module_file(slice_module(net, coupling, alive, network), network, (x,))
    assert made is not None
    content, told = made
    assert told.file == "module.safetensors" and told.reload < 1e-6
    assert set(told.arguments) == {
        Argument("first", "Linear", "out_features", 6, 4), Argument("last", "Linear", "in_features", 6, 4),
    }  # fmt: skip
    state = safetensors.torch.load(content)
    assert state["first.weight"].shape == (4, 4) and "mask" not in state and "again.weight" not in state
    with torch.no_grad():
        network.get_parameter("last.weight").mul_(2)  # a refit: the file has what the graph has
        network.mask = 3 * network.get_buffer("mask")  # but not this
    with pytest.raises(ModelError, match="differs from the written network"):
        module_file(slice_module(net, coupling, alive), network, (x,))


def test_there_is_none_where_the_code_cannot_represent_the_slice() -> None:
    network = trace(nn.Linear(4, 3).eval(), (torch.randn(2, 4),)).module
    assert module_file(None, network, (torch.randn(2, 4),)) is None


def test_a_refitted_layer_whose_name_no_graph_can_have() -> None:
    net = nn.Sequential()
    net.add_module("meta", nn.Linear(4, 6))
    net.add_module("in", nn.Linear(6, 2))
    coupling = analyse(trace(net.eval(), (torch.randn(2, 4),)))
    alive = coupling.alive({coupling.groups[0].name: np.array([1])})
    network = slice_graph(coupling, alive)
    found = slice_module(net, coupling, alive, network)
    with torch.no_grad():
        network.get_parameter("meta_.weight").mul_(2)
    made = module_file(found, network, (torch.randn(2, 4),))
    assert made is not None
    state = safetensors.torch.load(made[0])
    assert torch.equal(state["meta.weight"], network.get_parameter("meta_.weight"))
