from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.graph import analyse, slice_graph, trace
from compress.recover import compensate


def half() -> tuple[nn.Sequential, torch.Tensor]:
    """A norm whose layer loses half of its inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1, bias=False), nn.BatchNorm2d(3)).eval()
    x = torch.randn(100, 2, 4, 4)
    with torch.no_grad():
        y = net[:3](x)
        net[3].running_mean = y.mean((0, 2, 3)) + 0.1
        net[3].running_var = y.var((0, 2, 3)) * 1.5
    return net, x


def test_statistics_are_those_of_what_is_left() -> None:
    net, x = half()
    coupling = analyse(trace(net, (x[:2],)))
    alive = coupling.alive({"0": [0, 2, 4]})
    sliced = slice_graph(coupling, alive)
    done = compensate(coupling, alive, sliced, x, layers=False)
    assert list(done.norms) == ["3"]
    assert done.norms["3"] < 1
    assert (done.refitted, done.together) == ({}, {})
    with torch.no_grad():
        out, dense = done.module(x), net(x)
    # Normalised, what is left has the mean and the spread that all had.
    torch.testing.assert_close(out.mean((0, 2, 3)), dense.mean((0, 2, 3)), rtol=0, atol=0.1)
    torch.testing.assert_close(out.std((0, 2, 3)), dense.std((0, 2, 3)), rtol=0.05, atol=0)
    assert torch.equal(sliced.get_buffer("3.running_mean"), net[3].running_mean)  # type: ignore[arg-type]


def test_a_refitted_layer_has_its_own_norm_alone() -> None:
    net, x = half()
    coupling = analyse(trace(net, (x[:2],)))
    alive = coupling.alive({"0": [0, 2, 4]})
    done = compensate(coupling, alive, slice_graph(coupling, alive), x)
    assert done.norms == {}
    assert "2.weight" in done.refitted


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_that_cannot_be_refitted_gets_new_statistics(frozen: bool) -> None:
    net, x = half()
    coupling = analyse(trace(net, (x[:2],)), allow_frozen=True)
    net[2].weight.requires_grad_(not frozen)
    alive = coupling.alive({"0": [0, 2, 4]})
    object.__setattr__(coupling.flow, "untrained", frozenset({"2.weight"} if frozen else ()))
    done = compensate(coupling, alive, slice_graph(coupling, alive), x)
    assert (list(done.norms) == ["3"]) is frozen
    assert ("2.weight" in done.skipped) is frozen
