"""The networks of the sparsification paper have the sizes that it prints."""

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
        yield importlib.import_module("ds_networks")
    finally:
        sys.path.remove(str(PAPERS))


def multiplications(network: nn.Module) -> int:
    """Of convolutions and linear layers, for one image of 32 x 32; counted without numbers."""
    total = 0

    def count(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight[0].numel() * output.numel()

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, 3, 32, 32, device="meta"))
    return total


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("DenseNet", 769_162, 287_900_000), ("MobileNet", 215_642, 3_331_072)]
)
def test_sizes(networks: Any, name: str, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        network = getattr(networks, name)().eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert multiplications(network) == pytest.approx(macs, rel=2e-4)
    if name == "DenseNet":
        norms = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert sum(norms) == 11_994 and norms[-1] == 342
