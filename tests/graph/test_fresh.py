"""Weights drawn anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compress.graph.fresh import fresh_tensors


def test_bounds_go_by_the_inputs_of_an_output(lab: Any) -> None:
    """Uniform within 1 / sqrt(inputs), along whichever dim a weight holds what its layer produces."""
    parts = {"conv": nn.Conv2d(4, 64, 1), "up": nn.ConvTranspose2d(64, 4, 1)}
    weight, bias = nn.Parameter(torch.randn(4, 400)), nn.Parameter(torch.randn(400))
    network = lab.network(
        lambda m, x: torch.addmm(m.bias, m.up(m.conv(x)).mean((2, 3)), m.weight), **parts, weight=weight, bias=bias
    )
    found, left = fresh_tensors(lab.analyse(network, torch.randn(2, 4, 3, 3)), torch.Generator().manual_seed(0))
    assert not left
    for name, inputs in {"conv.weight": 4, "conv.bias": 4, "up.weight": 64, "weight": 4, "bias": 4}.items():
        bound, largest = inputs**-0.5, float(found[name].abs().max())
        assert largest <= bound and (found[name].numel() < 100 or largest > 0.9 * bound), name
