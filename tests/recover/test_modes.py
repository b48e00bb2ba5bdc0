"""A traced network in training against the module it was traced from, in training mode."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.graph import trace
from compress.recover.modes import Modes, train_graph


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, momentum=0.3)
        self.drop, self.channels = nn.Dropout(0.4), nn.Dropout2d(0.5)
        self.inside = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.channels(self.drop(self.inside(torch.relu(self.norm(self.conv(x))))))
        return self.head(h.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, 2, batch_first=True, dropout=0.5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(("make", "shape"), [(Net, (5, 2, 6, 6)), (Recurrent, (5, 4, 3))])
def test_training_is_that_of_the_module(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, x = make(), torch.randn(shape)
    model = Modes(trace(copy.deepcopy(module).eval(), (torch.randn(2, *shape[1:]),)).module)
    assert model.train().training
    for each in (module.train(), model):
        torch.manual_seed(1)  # the same values drop
        each(x).square().sum().backward()
    theirs = dict(module.named_parameters())
    for name, parameter in model.network.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-6)
    buffers = dict(module.named_buffers())
    for name, buffer in model.network.named_buffers():
        if "num_batches" not in name:
            torch.testing.assert_close(buffer, buffers[name])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), module.eval()(x))


def test_both_modes_have_the_same_tensors_after_a_move() -> None:
    model = Modes(trace(Net().eval(), (torch.randn(2, 2, 6, 6),)).module).to(torch.float64)
    model.train()(torch.randn(5, 2, 6, 6, dtype=torch.float64))
    mean = model.network.get_buffer("norm.running_mean")
    assert mean.dtype == torch.float64 and mean.abs().max() > 0
    assert len(list(model.parameters())) == len(list(Net().parameters()))


def test_norms_over_all_batches_get_a_usual_momentum() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, momentum=None)).eval()
    model = Modes(trace(module, (torch.randn(2, 1, 4, 4),)).module).train()
    model(torch.randn(8, 1, 4, 4))
    variance = model.network.get_buffer("1.running_var")
    assert bool((variance != 1).all()) and bool((variance > 0.85).all())  # a tenth of the way


def test_features_come_beside_the_output() -> None:
    network = trace(Net().eval(), (torch.randn(2, 2, 6, 6),)).module
    name = next(node.name for node in network.graph.nodes if "relu" in node.name)
    model, x = Modes(network, features=[name]).train(), torch.randn(3, 2, 6, 6)
    output, (feature,) = model(x)
    assert (tuple(output.shape), tuple(feature.shape)) == ((3, 3), (3, 6, 4, 4))
    assert tuple(model.eval()(x).shape) == (3, 3)


def test_the_network_itself_stays_in_eval_mode() -> None:
    network = trace(Net().eval(), (torch.randn(2, 2, 6, 6),)).module
    before = str(network.graph)
    assert str(train_graph(network)) != before
    assert str(network.graph) == before
