"""Units that masks leave dead: read by nothing, or reached by nothing with their constant carried on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.graph import analyse, remove_dead, trace


def test_dead_units_go_exactly_and_constants_are_carried() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        module.get_parameter("0.bias").copy_(torch.tensor([0.7, -0.4, 0.2, 0.1, 0.3]))
    first, second = torch.ones(5, 3, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    first[0] = False  # nothing reaches unit 0: it puts out relu(0.7)
    first[1] = False  # nor unit 1: it puts out relu(-0.4) = 0
    second[:, 2] = False  # nothing reads unit 2
    result = remove_dead(analyse(trace(module, (torch.randn(2, 3),))), {"0.weight": first, "2.weight": second})
    assert {n: u.tolist() for n, u in result.removed.items()} == {"0": [0, 1, 2]}
    assert result.carried == {"0": 1} and result.verification.passed
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(first)
        module.get_parameter("2.weight").mul_(second)
        x = torch.randn(7, 3)
        assert torch.allclose(result.module(x), module(x), atol=1e-6)
    assert result.module.get_parameter("0.weight").shape == (2, 3)


def test_a_constant_is_not_carried_through_zero_padding() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)).eval()
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(0.5)
    mask = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    mask[0] = False
    result = remove_dead(analyse(trace(module, (torch.randn(2, 1, 5, 5),))), {"0.weight": mask})
    assert not result.removed and result.verification.passed


class Attention(nn.Module):
    """Two heads of four features."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
        self.o, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(2, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y: torch.Tensor = nn.functional.scaled_dot_product_attention(q, k, v)
        y = self.head(self.o(y.transpose(1, 2).flatten(2)))
        return y


@pytest.mark.parametrize(("dead", "gone"), [([1], []), ([1, 6], [1, 6]), ([1, 2, 6], [1, 6])])
def test_as_many_dead_features_go_in_each_head(dead: list[int], gone: list[int]) -> None:
    """Heads stay equally wide; a dead feature that has no counterpart in the other head stays as zeros."""
    torch.manual_seed(0)
    coupling = analyse(trace(Attention().eval(), (torch.randn(2, 5, 6),)))
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[:, dead] = False
    result = remove_dead(coupling, {"o.weight": mask})
    assert {n: u.tolist() for n, u in result.removed.items()} == ({"v": gone} if gone else {})
    assert result.verification.passed
