"""The networks of the sparsification paper have the sizes that it prints."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import pytest
import torch

from compress.graph import analyse, macs, parameters, trace
from compress_plugins.norm_scales import batch_norms


@pytest.fixture(scope="module")
def networks() -> Any:
    return importlib.import_module("ds_networks")


@pytest.mark.parametrize(
    ("name", "count", "products"), [("DenseNet", 769_162, 287_929_692), ("MobileNet", 215_642, 3_331_072)]
)
def test_sizes(networks: Any, name: str, count: int, products: int) -> None:
    coupling = analyse(trace(getattr(networks, name)().eval(), (torch.zeros(2, 3, 32, 32),)))
    assert (parameters(coupling), macs(coupling)) == (count, products)
    if name == "DenseNet":
        network = coupling.program.module
        scales = [network.get_parameter(each).numel() for each in batch_norms(network)]
        assert sum(scales) == 11_994 and scales[-1] == 342


def test_the_page(networks: Any) -> None:
    """From made-up outcomes: the table beside the printed numbers, and which claims hold."""
    channels = importlib.import_module("ds_channels")
    found = {("base", 0.0): [channels.Outcome(50.0, 1.0, 1.0, 0.0, 0.0)]}
    errors = {("NS", 0.7): 60.0, ("DS", 0.7): 55.0, ("DS, on what goes", 0.7): 61.0}
    errors |= {(name, 0.8): error + 5 for (name, _), error in errors.items()}
    for (name, share), error in errors.items():
        found[name, share] = [channels.Outcome(error + d, 0.3, 0.25, share + 0.01, 0.9) for d in (-1.0, 1.0)]
    claims = {claim.claim: claim.holds for claim in channels.claims(found)}
    assert list(claims.values()) == [True, False, True, True, False, True]
    given = argparse.Namespace(
        depth=10, growth=8, samples=100, test=50, epochs=2, batch_size=16, lr=0.1, seeds=2
    )  # fmt: skip
    page = "\n".join(channels.page(found, given))
    assert "| DS 70% | 5.77 ± 0.09 | 0.27 M | 90 M | 55.00 ± 1.41 | 71.0 % | 30.0 % | 25.0 % | 90.0 % |" in page
    assert "**short run of a small network**" in page
    assert [len(series.y) for series in channels.figure(found).series] == [2] * 4
