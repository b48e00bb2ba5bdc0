from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.calibration.gradients import gradients
from compress.errors import ModelError
from compress.graph import trace


def test_gradients_of_every_batch() -> None:
    torch.manual_seed(0)
    net, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval(),
        torch.randn(7, 3),
        torch.ones(7).long(),
    )
    graph = trace(net, (x[:2],)).module
    found = list(gradients(graph, x, y, batch=4))
    for part, expected in zip(((x[:4], y[:4]), (x[4:], y[4:])), found, strict=True):
        net.zero_grad()
        functional.cross_entropy(net(part[0]), part[1]).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(expected[name], parameter.grad)


def test_the_network_is_left_as_it_was() -> None:
    graph = trace(nn.Linear(3, 2).eval(), (torch.randn(2, 3),)).module
    before = {n: p.detach().clone() for n, p in graph.named_parameters()}
    list(gradients(graph, torch.randn(5, 3), torch.zeros(5).long()))
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in graph.named_parameters())


def test_a_network_without_class_scores() -> None:
    graph = trace(nn.Conv2d(1, 2, 1).eval(), (torch.randn(2, 1, 3, 3),)).module
    with pytest.raises(ModelError, match="no class scores"):
        list(gradients(graph, torch.randn(4, 1, 3, 3), torch.zeros(4).long()))
    two = trace(nn.Linear(3, 2).eval(), (torch.randn(2, 3),)).module
    with pytest.raises(ModelError, match=r"\(samples, 3\)"):
        list(gradients(two, torch.randn(4, 3), torch.tensor([0, 1, 2, 0])))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.age, self.kind = nn.Linear(3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"age": self.age(x).squeeze(1), "kind": self.kind(x)}


def test_class_scores_in_a_dict() -> None:
    graph = trace(Two().eval(), (torch.randn(2, 3),)).module
    (found,) = gradients(graph, torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    assert found["kind.weight"].any() and not found["age.weight"].any()
