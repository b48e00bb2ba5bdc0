from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph import Cluster, clusters, empty_pieces, lowest
from compress.graph.select import Cell


def test_lowest_takes_the_same_share_of_every_cell() -> None:
    cluster = Cluster((Cell("a", np.array([0, 1, 2])), Cell("a", np.array([3, 4, 5])), Cell("b", np.arange(6))), 3)
    scores = {"a": np.array([5.0, 1, 3, 9, 8, 7]), "b": np.array([1.0, 2, 3, 0, 5, 6])}
    removed = lowest(cluster, scores, 1)
    assert {n: u.tolist() for n, u in removed.items()} == {"a": [1, 5], "b": [0, 3]}
    assert {n: u.tolist() for n, u in lowest(cluster, scores, 2).items()} == {"a": [1, 2, 4, 5], "b": [0, 1, 2, 3]}
    assert lowest(cluster, scores, 0) == {}
    assert cluster.groups == ("a", "b")


def test_equal_scores_go_in_order() -> None:
    cluster = Cluster((Cell("a", np.arange(4)),), 4)
    assert lowest(cluster, {"a": np.zeros(4)}, 2)["a"].tolist() == [0, 1]


@pytest.fixture(scope="module")
def grouped(lab: Any) -> Any:
    """8 channels into a convolution of 2 groups with 12 outputs, which one more layer reads."""
    layers = nn.Sequential(nn.Conv1d(2, 8, 1), nn.Conv1d(8, 12, 1, groups=2), nn.ReLU(), nn.Conv1d(12, 2, 1))
    return lab.analyse(layers.eval(), torch.randn(2, 2, 4))


def test_blocks_are_cells_and_keep_the_balance(grouped: Any) -> None:
    cluster = next(c for c in clusters(grouped) if "1" in c.groups)
    assert sorted(c.units.tolist() for c in cluster.cells if c.group == "1") == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    rng = np.random.default_rng(0)
    removed = lowest(cluster, {g.name: rng.random(g.size) for g in grouped.groups}, cluster.steps // 2)
    kept = grouped.kept(grouped.alive(removed))["1.weight"][0]
    assert (kept < 6).sum() == (kept >= 6).sum() < 6


def test_every_group_is_in_one_cluster(grouped: Any) -> None:
    named = [g for c in clusters(grouped) for g in c.groups]
    assert sorted(named) == sorted(g.name for g in grouped.groups)


def test_empty_pieces_names_the_group_that_took_the_last(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        a, b = m.a(x).split([2, 4], 1)
        return m.o(b) + m.p(a)

    module = lab.network(forward, a=nn.Linear(3, 6), o=nn.Linear(4, 2), p=nn.Linear(2, 2))
    coupling = lab.analyse(module, torch.randn(2, 3))
    first = next(g for g in coupling.groups if g.size == 2)
    assert empty_pieces(coupling, coupling.alive({first.name: [0]})) == set()
    assert empty_pieces(coupling, coupling.alive({first.name: [0, 1]})) == {first.name}


def test_heads_that_cannot_go_do_not_keep_their_features(lab: Any) -> None:
    """A convolution in groups mixes the features of each head: equal numbers of queries, keys and values."""

    def forward(m: Any, x: Any) -> Any:
        both = torch.cat([m.qkv(x), m.mix(m.qkv(x))], 1).reshape(x.shape[0], 4, 12, -1).transpose(-1, -2)
        q, k, v = both.chunk(3, -1)
        y = q @ (k.transpose(-1, -2) @ v)
        return m.o(y.transpose(-1, -2).reshape(x.shape[0], 16, -1))

    parts = {"qkv": nn.Conv1d(3, 24, 1), "mix": nn.Conv1d(24, 24, 1, groups=6), "o": nn.Conv1d(16, 2, 1)}
    module = lab.network(forward, **parts)
    found = clusters(lab.analyse(module, torch.randn(2, 3, 5)))
    assert {c.steps: {(cell.group, len(cell.units)) for cell in c.cells} for c in found} == {
        4: {("qkv", 4), ("qkv#2", 4), ("mix", 4), ("mix#2", 4)},
        1: {("qkv.blocks", 1), ("mix.blocks", 1)},
    }
    outcome = lab.prune(module, torch.randn(2, 3, 5), ratio=0.5)
    assert outcome.verification.passed
    assert len(outcome.coupling.kept(outcome.alive)["qkv.weight"][0]) == 12
