"""A partly pruned network in its full shape computes what the sliced one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from compress.budget import Budget, fit
from compress.graph import Coupling, analyse, attribute, clusters, partly_pruned, slice_graph, trace
from compress.graph.double import as_double
from compress.graph.partly import left_of
from compress.testing import example_networks


def removed_from(coupling: Coupling, ratio: float = 0.4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    found = [c for c in clusters(coupling) if c.steps > 1]
    return fit(coupling, found, {g.name: rng.random(g.size) for g in coupling.groups}, Budget("ratio", ratio))


def difference(coupling: Coupling, removed: Any, sliced: Any, inputs: Any) -> float:
    whole = partly_pruned(coupling, removed, sliced).program.module
    wide = [x.double() for x in inputs]
    with torch.no_grad():
        a, b = as_double(sliced)(*wide), as_double(whole)(*wide)
    return float((a - b).abs().max() / a.abs().max())


class Norms(nn.Module):
    """Statistics over channels, a sigmoid that makes 0.5 of zero before a product, a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=2, padding=1)
        self.group, self.layer = nn.GroupNorm(4, 16), nn.LayerNorm(16)
        self.gate, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.b(self.group(self.a(x)).sigmoid()).flatten(2).transpose(1, 2)
        x = self.layer(x)
        scores = (torch.sigmoid(self.gate(x)) @ x.transpose(1, 2)).softmax(-1)
        return self.head(F.gelu(scores @ x).mean(1))


def test_it_computes_what_the_slice_does() -> None:
    torch.manual_seed(0)
    cases = [*example_networks(), ("norms", Norms().eval(), (torch.randn(2, 3, 5, 5),))]
    for name, module, inputs in cases:
        coupling = analyse(trace(module, inputs))
        removed = removed_from(coupling)
        sliced = slice_graph(coupling, coupling.alive(removed))
        assert difference(coupling, removed, sliced, inputs) < 1e-12, name
        larger = [torch.cat([x, x[:1]]) for x in inputs]
        assert difference(coupling, removed, sliced, larger) < 1e-12, name


def test_weights_that_changed_after_the_slice_are_in_it() -> None:
    torch.manual_seed(0)
    coupling = analyse(trace(Norms().eval(), (torch.randn(2, 3, 5, 5),)))
    removed = removed_from(coupling)
    sliced = slice_graph(coupling, coupling.alive(removed))
    with torch.no_grad():
        for parameter in sliced.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert difference(coupling, removed, sliced, (torch.randn(3, 3, 5, 5),)) < 1e-12


def test_what_has_gone_is_zero_and_what_stays_keeps_its_place() -> None:
    coupling = analyse(trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), (torch.randn(2, 3),)))
    removed = {"0": np.array([0, 2])}
    partly = partly_pruned(coupling, removed, slice_graph(coupling, coupling.alive(removed)))
    before, after = (attribute(c.program.module, "0.weight") for c in (coupling, partly))
    assert torch.equal(after[[1, 3]], before[[1, 3]]) and not after[[0, 2]].any()
    assert not attribute(partly.program.module, "2.weight")[:, [0, 2]].any()
    (group,) = partly.groups
    assert group.size == 2
    assert [m.index.ravel().tolist() for m in group.members] == [[1, 3]] * 3
    (cluster,) = clusters(coupling)
    left = left_of(cluster, removed, {"0": 4})
    assert (left.steps, left.cells[0].units.tolist()) == (2, [0, 1])
    assert coupling.removed(coupling.alive(removed))["0"].tolist() == [0, 2]
