from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph import analyse, trace
from compress.plugin import Context, make_plan
from compress_plugins.activation import Activation


def seen(module: nn.Module, x: Tensor) -> Context:
    data = SimpleNamespace(train=SimpleNamespace(inputs=x, targets=torch.zeros(len(x), dtype=torch.int64)))
    return Context(analyse(trace(module.eval(), (x[:2],))), data=data)


def test_scores_by_hand() -> None:
    """Weights 1, -1, 2 on the inputs 1 and -3: behind the ReLU 1, 0, 2 and 0, 3, 0."""
    first = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0]]))
    context = seen(nn.Sequential(first, nn.ReLU(), nn.Linear(3, 2)), torch.tensor([[1.0], [-3.0]]))
    assert Activation().score(context.groups[0], context).tolist() == pytest.approx([0.5, 1.5, 1.0])


class TwoReaders(nn.Module):
    """One reads the units, the other their negative half."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(2, 2, bias=False), nn.Linear(2, 1), nn.Linear(2, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.one(x) + self.two(torch.relu(-x))


def test_the_mean_over_readers() -> None:
    context = seen(TwoReaders(), torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    # The first sees magnitudes 2 and 3 on average, the second 0 and 3.
    assert Activation().score(context.groups[0], context).tolist() == pytest.approx([1.0, 3.0])


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_of_convolutions(groups: int) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, groups=groups))
    x = torch.randn(5, 1, 6, 6)
    context = seen(net, x)
    with torch.no_grad():
        expected = net[:2](x).mean((0, 2, 3))
    order = torch.as_tensor(context.groups[0].members[0].index[:, 0])
    scores = Activation().score(context.groups[0], context)
    torch.testing.assert_close(scores.float(), expected[order])


def test_it_needs_training_samples() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).eval()
    with pytest.raises(InputError, match="training samples"):
        make_plan(Activation(), Context(analyse(trace(net, (torch.randn(2, 2),)))))
    with pytest.raises(ValueError, match="samples"):
        Activation(samples=0)
