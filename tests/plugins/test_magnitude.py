from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import analyse, trace
from compress.plugin import Budget, Context, make_plan
from compress.testing import check_plugin
from compress_plugins.dependency import Dependency
from compress_plugins.magnitude import Magnitude


def net() -> nn.Sequential:
    """Rows of the first layer: (3, 4), (-2, 0), (1, 1); the second layer would rank them the other way round."""
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 4.0], [-2.0, 0.0], [1.0, 1.0]]))
        second.weight.copy_(torch.tensor([[0.1, 5.0, 50.0]]))
    return nn.Sequential(first, second).eval()


def context(module: nn.Module | None = None, *shape: int, **options: Any) -> Context:
    return Context(analyse(trace(module or net(), (torch.randn(2, *(shape or (2,))),))), **options)


def test_norms_by_hand() -> None:
    seen = context()
    assert Magnitude("l1").score(seen.groups[0], seen).tolist() == [7.0, 2.0, 2.0]
    assert Magnitude("l2").score(seen.groups[0], seen).tolist() == pytest.approx([5.0, 2.0, 2**0.5])


class Stream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(2, 2, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        out: Tensor = self.c(y + self.b(y))
        return out


def test_every_layer_that_adds_to_a_stream_counts() -> None:
    module = Stream().eval()
    with torch.no_grad():
        module.a.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        module.b.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        module.c.weight.fill_(100.0)
    seen = context(module)
    assert Magnitude().score(seen.groups[0], seen).tolist() == pytest.approx([5.0, 2**0.5])


def masks(method: Any, ratio: float, module: nn.Module | None = None) -> dict[str, list[Any]]:
    seen = context(module, granularity="weight", budget=Budget("ratio", ratio))
    return {name: mask.int().tolist() for name, mask in make_plan(method, seen).masks.items()}


def test_single_weights_of_each_layer_go() -> None:
    """Half of six is the three smallest (0, 1 and 1), half of three, rounded, two."""
    assert masks(Magnitude(), 0.5) == {"0.weight": [[1, 1], [1, 0], [0, 0]], "1.weight": [[0, 0, 1]]}


def test_single_weights_of_all_layers_together() -> None:
    """Five of nine: 0, 0.1, 1, 1 and -2."""
    found = masks(Magnitude(layers="together"), 5 / 9)
    assert found == {"0.weight": [[1, 1], [0, 0], [0, 0]], "1.weight": [[0, 1, 1]]}


def test_every_layer_keeps_its_largest_weight() -> None:
    small = net()
    with torch.no_grad():
        small.get_parameter("1.weight").mul_(1e-6)
    assert masks(Magnitude(layers="together"), 0.6, small)["1.weight"] == [[0, 0, 1]]
    assert masks(Magnitude(), 0.99)["1.weight"] == [[0, 0, 1]]


def test_parameters_as_the_budget_and_what_zeros_cannot_do() -> None:
    seen = context(granularity="weight", budget=Budget("params", 4))
    kept = sum(int(m.sum()) for m in make_plan(Magnitude(layers="together"), seen).masks.values())
    assert kept == 4
    for kind in ("macs", "bytes"):
        with pytest.raises(ModelError, match=f"zeros change nothing about --{kind}"):
            make_plan(Magnitude(), dataclasses.replace(seen, budget=Budget(kind, 0.5)))
    biased = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).eval()
    with pytest.raises(ModelError, match="4 of 13 parameters are never zeroed"):
        make_plan(Magnitude(), context(biased, granularity="weight", budget=Budget("params", 4)))


def test_a_criterion_of_units_says_so() -> None:
    with pytest.raises(ModelError, match="dependency scores whole units and has no meaning for single weights"):
        make_plan(Dependency(), context(granularity="weight"))


@pytest.mark.parametrize("method", [Magnitude(), Magnitude("l1", "together")])
def test_conformance(method: Magnitude) -> None:
    check_plugin(method)
