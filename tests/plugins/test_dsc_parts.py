"""The parts of dsc: counts and rates of the paper, stacks, and the order in which inputs go."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from compress.errors import ModelError
from compress.graph import analyse, trace
from compress.plugin import Context
from compress_plugins.dsc_columns import fewest, most, order
from compress_plugins.dsc_layers import convert, short_circuits
from compress_plugins.dsc_stacks import find_stacks
from compress_plugins.dsc_transfer import block_rates, network_rate, settled

# Tables 3 and 4 of the paper count the hidden layers alone; with the output layer of 10 there are more. The sums there
# run over one source too many: a layer does not read itself.
COUNTS = [
    (784, (100, 50), "ffn", 83_550, 84_060),
    (784, (100, 50), "gsc", 122_750, 132_100),
    (784, (100, 50), "dsc", 124_418, 134_702),
    (1024, (150, 60), "ffn", 162_810, 163_420),
    (1024, (150, 60), "gsc", 224_250, 236_600),
    (1024, (150, 60), "dsc", 226_448, 240_032),
    (784, (40, 25), "ffn", 32_425, 32_685),
    (784, (10, 10), "gsc", 15_800, 23_850),
    (784, (10, 10), "dsc", 17_378, 26_232),
    (1024, (30, 15), "ffn", 31_215, 31_375),
    (1024, (15, 10), "gsc", 25_775, 36_275),
    (1024, (15, 10), "dsc", 27_838, 39_387),
]


@pytest.mark.parametrize(("inputs", "widths", "form", "hidden", "whole"), COUNTS)
def test_parameters_of_the_paper(inputs: int, widths: tuple[int, int], form: Any, hidden: int, whole: int) -> None:
    """Of the network that is trained: weights, biases, and with ``dsc`` a gate for every input of every layer."""
    context = mlp(inputs, *widths, 10)
    network = context.copy()
    convert(network, find_stacks(context, False), form, "effective", 0.5)
    output = [network.get_parameter(f"4.{name}") for name in ("weight", "bias")]
    output += short_circuits(network)["4"].parameters()
    total = sum(p.numel() for p in network.parameters())
    assert (total - sum(p.numel() for p in output), total) == (hidden, whole)


def mlp(*widths: int) -> Context:
    torch.manual_seed(0)
    layers = [each for a, b in pairwise(widths) for each in (nn.Linear(a, b), nn.ReLU())][:-1]
    return Context(analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, widths[0]),))), has_budget=False)


def test_the_rate_of_the_sample_table() -> None:
    blocks = {
        ("in", "1"): 1.0,
        ("in", "2"): 0.5,
        ("in", "3"): 0.67,
        ("1", "2"): 0.32,
        ("1", "3"): 0.26,
        ("2", "3"): 0.35,
    }
    assert network_rate({}, blocks, "pairs") == pytest.approx(0.516667, abs=1e-6)


def test_both_formulas_on_blocks_of_different_sizes() -> None:
    gates = {"1": torch.tensor([0.2, 0.4]), "2": torch.tensor([1.0, 0.0, 0.5])}
    blocks = block_rates(gates, {"1": [("in", 2)], "2": [("in", 2), ("1", 1)]})
    assert blocks == {("in", "1"): pytest.approx(0.3), ("in", "2"): 0.5, ("1", "2"): 0.5}
    assert network_rate(gates, blocks, "pairs") == pytest.approx(1.3 / 3)
    assert network_rate(gates, blocks, "layers") == pytest.approx(0.4)


# Rates of the authors' recorded runs at epochs 0, 1, 2, 5, 10, 20, 50, 100
CURVES = {
    "mnist": [0.731, 0.475, 0.448, 0.436, 0.428, 0.423, 0.411, 0.408],
    "fashion": [0.731, 0.393, 0.365, 0.328, 0.313, 0.302, 0.292, 0.290],
    "cifar": [0.731, 0.632, 0.570, 0.458, 0.404, 0.376, 0.323, 0.279],
}


@pytest.mark.parametrize(("name", "fires"), [("mnist", True), ("fashion", True), ("cifar", False)])
def test_when_the_recorded_runs_have_settled(name: str, fires: bool) -> None:
    epochs, rates = [0, 1, 2, 5, 10, 20, 50, 100], []
    for (a, b), (x, y) in zip(pairwise(epochs), pairwise(CURVES[name]), strict=True):
        rates += [x + (y - x) * i / (b - a) for i in range(b - a)]
    rates.append(CURVES[name][-1])
    assert any(settled(rates[: n + 1], "fall", 10, 0.005) for n in range(101)) == fires
    assert not settled(rates[:10], "fall", 10, 1.0) and settled(rates[:11], "fall", 10, 1.0)
    assert not settled(rates, "never", 10, 1.0)


def test_settled_by_deviation() -> None:
    rates = [0.9, 0.5, 0.52, 0.48, 0.5]
    assert settled(rates, "std", 3, 0.02) and not settled(rates, "std", 4, 0.02)
    assert settled([0.5, 0.6], "fall", 1, 0.01)  # a rise is no fall


class Net(nn.Module):
    """Two stacks of linear layers, and layers that are in none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)
        self.layer_norm, self.c, self.d = nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 4)
        self.e, self.f, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.b(torch.dropout(self.norm(self.a(x)) * 2, 0.1, False))
        x = self.c(self.layer_norm(x))
        x = self.d(x * torch.sigmoid(x))
        out: Tensor = self.last(self.e(x) + self.f(x))
        return out


def test_stacks() -> None:
    """Through an activation made of two operations too; where two layers read one, the stack ends; sums mix layers."""
    context = Context(analyse(trace(Net().eval(), (torch.randn(2, 6),))), has_budget=False)
    found = find_stacks(context, False)
    assert [([layer.name for layer in s.layers], s.sizes) for s in found] == [
        (["a", "b"], (6, 8)),
        (["c", "d"], (6, 5)),
    ]


def test_protected_layers_are_sources_alone() -> None:
    context = mlp(8, 7, 6, 5)
    context = context.changed(exclude=("2",))
    (stack,) = find_stacks(context, False)
    assert [layer.consumes for layer in stack.layers] == [True, False, True]
    network = context.copy()
    convert(network, (stack,), "dsc", "effective", 0.5)
    assert {n: m.reading.sizes for n, m in short_circuits(network).items()} == {"0": (8,), "4": (8, 7, 6)}
    with pytest.raises(ModelError, match="no stack to short-circuit"):
        find_stacks(context.changed(exclude=("*",)), False)


class Tied(nn.Module):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        if frozen:
            self.b.weight.requires_grad_(False)
        else:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return out


@pytest.mark.parametrize("frozen", [True, False])
def test_layers_whose_weight_is_tied_or_frozen_are_in_no_stack(frozen: bool) -> None:
    context = Context(analyse(trace(Tied(frozen).eval(), (torch.randn(2, 4),))), has_budget=False)
    with pytest.raises(ModelError, match="nowhere in the model do two linear layers follow each other") as found:
        find_stacks(context, False)
    assert found.value.hint is not None and "--conv takes stacks of convolutions as well" in found.value.hint


def converted(*widths: int) -> fx.GraphModule:
    context = mlp(*widths)
    network = context.copy()
    convert(network, find_stacks(context, False), "dsc", "effective", 0.5)
    return network


def test_the_order_by_hand() -> None:
    modules = short_circuits(converted(3, 2, 2))
    scores = {"0": torch.tensor([0.5, 0.1, 0.9]), "2": torch.tensor([0.2, 0.3, 0.4, 0.05, 0.06])}
    by_layer = order(scores, modules, "layer")
    # The best of each layer stays, and the better feature of layer 0, which layer 2 alone reads
    assert by_layer.steps == (("2", 3), ("0", 1), ("2", 0), ("0", 0), ("2", 1))
    assert by_layer.keys == pytest.approx((0.2, 1 / 3, 0.6, 2 / 3, 0.8))
    assert by_layer.before(0.6 + 1e-9) == 3
    together = order(scores, modules, "all")
    assert together.steps == (("2", 3), ("0", 1), ("2", 0), ("2", 1), ("0", 0)) and together.before(0.2) == 2
    kept = together.kept(2)
    assert kept["0"].tolist() == [True, False, True] and kept["2"].tolist() == [True, True, True, False, True]


@given(st.integers(0, 40), st.integers(0, 40))
def test_bisection(steps: int, threshold: int) -> None:
    assert fewest(steps, lambda n: n >= threshold) == (threshold if threshold <= steps else None)
    assert most(steps, lambda n: n <= threshold) == min(steps, threshold)
    assert most(steps, lambda n: False) is None


def test_a_mean_over_pairs_is_what_equation_10_divides_by() -> None:
    blocks = {(str(i), str(j)): 0.1 * (i + j) for j in range(1, 4) for i in range(j)}
    assert network_rate({}, blocks, "pairs") == pytest.approx(sum(blocks.values()) / (3 * 4 / 2))
