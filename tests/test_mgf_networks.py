"""The networks of the paper behind standout: their counts, and that the method prunes them to the printed widths."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

PAPERS = Path(__file__).resolve().parents[1] / "benchmarks" / "papers"


@pytest.fixture(scope="module")
def networks() -> Iterator[Any]:
    sys.path.append(str(PAPERS))
    try:
        yield importlib.import_module("mgf_networks")
    finally:
        sys.path.remove(str(PAPERS))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_counts(networks: Any) -> None:
    large, small = networks.mgf_network(), networks.mgf_network("small")
    assert (count(large), count(small)) == (852_490, 406_890)
    assert [count(large.get_submodule(f"conv{i}")) for i in (1, 2, 3)] == [832, 51_264, 204_928]
    assert [count(small.get_submodule(f"conv{i}")) for i in (1, 2, 3)] == [624, 28_848, 76_864]
    left = {n: count(networks.mgf_network(nodes=n)) for n in (256, 128, 64, 32, 16, 1)}
    assert left == {256: 554_762, 128: 405_898, 64: 331_466, 32: 294_250, 16: 275_642, 1: 258_197}


def test_maps_of_3_by_3_come_to_the_linear_layer(networks: Any) -> None:
    for size, filters in (("large", 128), ("small", 64)):
        network = networks.mgf_network(size, activation="leaky", dropout=0.5)
        position = [name for name, _ in network.named_children()].index("flatten")
        assert network[:position](torch.zeros(2, 1, 28, 28)).shape == (2, filters, 3, 3)
        assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        assert isinstance(network.get_submodule("active"), nn.LeakyReLU) and network.get_submodule("dropout").p == 0.5


def test_the_gates_of_the_paper(networks: Any) -> None:
    from compress.graph import analyse, parameters, trace
    from compress.plugin import Context
    from compress_plugins.standout import Standout

    coupling = analyse(trace(networks.mgf_network().eval(), (torch.zeros(2, 1, 28, 28),)))
    session = Standout(nodes=32).start(Context(coupling, has_budget=False))
    assert [place.weight for place in session.places] == ["fc.weight"] and session.targets.prunings == 4
    assert parameters(coupling, coupling.alive({"fc": range(480)})) == 294_250
