"""Dead units of random networks: without them the network computes the same."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import Coupling, analyse, remove_dead, trace
from compress.graph.blocks import clear
from compress.graph.double import leaves
from compress.graph.slice import attribute
from tests.graph.generator import draw_network

Masks = dict[str, Tensor]


def cut_off(coupling: Coupling, rng: np.random.Generator) -> tuple[Masks, dict[str, list[int]]]:
    """Masks that leave random units without incoming or outgoing weights; and by group the latter."""
    masks: Masks = {}
    unread: dict[str, list[int]] = {}
    for group in coupling.groups:
        for unit in np.flatnonzero(rng.random(group.size) < 0.4):
            outgoing = bool(rng.random() < 0.5)
            if outgoing:
                unread.setdefault(group.name, []).append(int(unit))
            for member in group.members:
                tensor = attribute(coupling.program.module, member.tensor)
                if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and (member.dim == 1) == outgoing:
                    mask = masks.setdefault(member.tensor, torch.ones(tensor.shape, dtype=torch.bool))
                    clear(mask, member.dim, member.blocks, member.index[unit])
    return masks, unread


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_any_network_is_exact_on_other_inputs(seed: int, size: int) -> None:
    network = draw_network(seed, size)
    module, inputs = network.module, network.inputs
    coupling = analyse(trace(module, inputs))
    masks, _ = cut_off(coupling, np.random.default_rng(seed))
    try:
        result = remove_dead(coupling, masks)
    except ModelError:  # weights without any norm left divide by zero
        return
    assert result.verification.passed and not result.rolled_back, network.recipe
    with torch.no_grad():
        for name, mask in masks.items():
            attribute(module, name).mul_(mask)
        other = [torch.randn_like(x) if x.is_floating_point() else x.flip(0) for x in inputs]
        pairs = zip(leaves(module(*other)), leaves(result.module(*other)), strict=True)
        worst = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-3)) for a, b in pairs)
    assert worst < 1e-3, network.recipe  # in float32, where a network may be badly conditioned
