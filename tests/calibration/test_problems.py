from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.calibration import problems as module
from compress.calibration.layers import Layers
from compress.calibration.problems import Gram, Problem, problems, readers
from compress.graph import Coupling, analyse, trace


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def found(net: nn.Module, x: Tensor, most: int = 1000) -> tuple[Coupling, dict[str, Any]]:
    coupling = analyse(trace(net.eval(), (x[:2],)))
    return coupling, {g.name: p for g, p in problems(coupling, coupling.groups, x, 0, most)}


def test_a_linear_reader_with_a_bias_sees_deviations_from_the_mean() -> None:
    net, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(70, 3)
    _, by_group = found(net, x)
    ((only,),) = by_group.values()
    with torch.no_grad():
        h = net[:2](x).double()
    assert only.layer == "2.weight"
    torch.testing.assert_close(only.xx, (h - h.mean(0)).T @ (h - h.mean(0)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(only.weight, net[2].weight.detach().double().T)  # type: ignore[operator]
    assert only.columns.tolist() == [[i] for i in only.units.tolist()]


def test_a_linear_reader_without_a_bias_sees_the_sums_themselves() -> None:
    net, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)), torch.randn(70, 3)
    _, by_group = found(net, x)
    with torch.no_grad():
        h = net[:2](x).double()
    torch.testing.assert_close(by_group["0"][0].xx, h.T @ h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_every_group_of_a_convolution_is_a_problem(groups: int) -> None:
    """The error of leaving a unit out without a refit, from the problems and by running the layer."""
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=False))
    x = torch.randn(6, 2, 5, 5)
    coupling, by_group = found(net, x)
    parts: list[Problem] = by_group["0"]
    assert len(parts) == groups
    index = coupling.groups[0].members[0].index[:, 0]
    with torch.no_grad():
        h = net[:2](x)
        for unit in range(4):
            alone = torch.zeros_like(h)
            alone[:, index[unit]] = h[:, index[unit]]
            expected = net[2](alone).double().square().sum()
            total = torch.zeros((), dtype=torch.float64)
            for part in parts:
                columns = part.columns[part.units == unit].flatten()
                own = part.weight[columns]
                total += (own * (part.xx[columns][:, columns] @ own)).sum()
            torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def test_few_samples_are_kept_as_they_are() -> None:
    net, x = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 2)), torch.randn(6, 3)
    _, by_group = found(net, x)
    (only,) = by_group["0"]
    with torch.no_grad():
        h = net[:2](x).double()
    torch.testing.assert_close(only.gram.rows, h - h.mean(0), rtol=1e-5, atol=1e-5)
    multiplied = Gram(only.xx)
    assert multiplied.rows is None
    assert only.gram.scale == pytest.approx(multiplied.scale)
    output = (h - h.mean(0)) @ only.weight
    for gram in (only.gram, multiplied):
        assert gram.energy(only.weight) == pytest.approx(float(output.square().sum()), rel=1e-5)


class Stream(nn.Module):
    """A residual stream that a branch and the head read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down, self.head = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.head(x + self.down(torch.relu(self.up(x))))
        return out


def test_a_group_comes_when_its_last_reader_was_met() -> None:
    x = torch.randn(30, 3)
    coupling = analyse(trace(Stream().eval(), (x[:2],)))
    came = list(problems(coupling, coupling.groups, x, 0, 100))
    assert [g.name for g, _ in came] == ["up", "first"]
    assert [[p.layer for p in parts] for _, parts in came] == [["down.weight"], ["up.weight", "head.weight"]]  # type: ignore[union-attr]


def test_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _, by_group = found(Stream(), torch.randn(30, 3), most=5)
    assert by_group["up"] == "down.weight has 6 inputs, too many for a normal matrix"
    assert len(by_group["first"]) == 2
    monkeypatch.setattr(module, "MEMORY", 8 * 20)
    _, by_group = found(Stream(), torch.randn(30, 3))
    assert by_group["first"] == "the normal matrices of its readers would take 0.0 GB"


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) @ self.last


def test_a_group_that_no_layer_reads() -> None:
    coupling, by_group = found(Squares(), torch.randn(9, 3))
    assert by_group == {"first": "no linear layer or convolution sums over its units"}
    assert readers(coupling, coupling.groups[0], Layers(coupling.program.module)) == []
