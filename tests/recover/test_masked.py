"""Networks with masked weights, refitted with their zeros where they are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from compress.graph import Coupling, analyse, remove_dead, trace
from compress.graph.dead import DeadRemoval
from compress.recover import Compensation, compensate


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def masked(net: nn.Module, x: Tensor, masks: Mapping[str, Tensor]) -> tuple[Coupling, DeadRemoval]:
    coupling = analyse(trace(net.eval(), (x[:2],)))
    return coupling, remove_dead(coupling, masks)


def refit(coupling: Coupling, found: DeadRemoval, x: Tensor, layers: bool = True) -> Compensation:
    alive = coupling.alive(found.removed)
    return compensate(coupling, alive, found.module, x, layers=layers, keep_zeros=True)


def difference(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max() / a(x).abs().max())


class Redundant(nn.Module):
    """Inputs 0 and 1 are the same, so that a layer can do without either."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_what_is_left_of_a_row_takes_over_what_is_masked() -> None:
    net, x = Redundant(), torch.randn(200, 4)
    x[:, 1] = x[:, 0]
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[::2, 0] = mask[1::2, 1] = False  # by row another of the two
    coupling, found = masked(net, x, {"first.weight": mask})
    done = refit(coupling, found, x)
    assert difference(net, found.module, x) > 0.05
    assert difference(net, done.module, x) < 1e-3
    assert torch.equal(done.module.get_parameter("first.weight") != 0, mask)
    assert done.together == {}


def test_a_bias_takes_over_the_mean_of_what_is_masked() -> None:
    """An input of mean 3 that nothing else tells of: 3 w is what a bias can take over of it."""
    net, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(4000, 4)
    x[:, 2] += 3
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[:, 2] = False
    coupling, found = masked(net, x, {"0.weight": mask})
    done = refit(coupling, found, x)
    with torch.no_grad():
        expected = net.get_parameter("0.bias") + 3 * net.get_parameter("0.weight")[:, 2]
    torch.testing.assert_close(done.module.get_parameter("0.bias"), expected, rtol=0, atol=0.05)
    assert not done.module.get_parameter("0.weight")[:, 2].any()


class Normed(nn.Module):
    """A norm behind a layer without a bias; unit 2 of the first layer is constant, which the norm's mean takes over."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        with torch.no_grad():
            self.first.weight[2] = 0
            self.first.bias[2] = 1.5  # type: ignore[index]
        self.norm.running_mean = torch.randn(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.first(x))))


@pytest.mark.parametrize("layers", [False, True])
def test_constants_that_a_norm_has_taken_over_are_counted_once(layers: bool) -> None:
    net, x = Normed(), torch.randn(80, 3, 3, 3)
    mask = torch.ones(4, 5, 1, 1, dtype=torch.bool)
    coupling, found = masked(net, x, {"second.weight": mask})
    assert list(found.removed["first"]) == [2] and found.carried == {"first": 1}
    mean = found.module.get_buffer("norm.running_mean")
    assert not torch.allclose(mean, net.norm.get_buffer("running_mean"), atol=0.1)
    done = refit(coupling, found, x, layers)
    torch.testing.assert_close(done.module.get_buffer("norm.running_mean"), mean, rtol=1e-4, atol=1e-4)
    assert difference(net, done.module, torch.randn(9, 3, 3, 3)) < 1e-4


@pytest.mark.parametrize("layers", [False, True])
def test_norms_make_up_for_masks_where_dead_units_are_gone_too(layers: bool) -> None:
    net, x = Normed(), torch.randn(200, 3, 3, 3)
    mask = torch.ones(4, 5, 1, 1, dtype=torch.bool)
    mask[:, 0] = False  # so unit 0 is not read, and goes as the constant one does
    mask[1, 3] = False
    coupling, found = masked(net, x, {"second.weight": mask})
    assert list(found.removed["first"]) == [0, 2]
    done = refit(coupling, found, x, layers)
    with torch.no_grad():
        out, dense = done.module(x), net(x)
    assert torch.equal(done.module.get_parameter("second.weight") != 0, mask[:, [1, 3, 4]])
    torch.testing.assert_close(out.mean((0, 2, 3)), dense.mean((0, 2, 3)), rtol=0, atol=0.05)
    changed = [n for n, p in done.module.named_parameters() if not torch.equal(p, found.module.get_parameter(n))]
    assert (list(done.norms), changed) == (([], ["second.weight"]) if layers else (["norm"], []))
