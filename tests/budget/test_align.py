"""Which widths are multiples, and of what."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.budget import fit_layers, multiple, rungs
from compress.graph import Coupling, analyse, attribute, clusters, layer_weights, lowest, trace


def analysed(module: nn.Module, *shape: int) -> Coupling:
    return analyse(trace(module.eval(), (torch.randn(2, *shape),)))


def by_group(coupling: Coupling, round_to: int) -> dict[str, list[int]]:
    """By the first group of each cluster, how many of its steps may stay."""
    found = [c for c in clusters(coupling) if c.steps > 1]
    return {
        c.groups[0]: (c.steps - rung).tolist() for c, rung in zip(found, rungs(coupling, found, round_to), strict=True)
    }


def mlp(*widths: int) -> Coupling:
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return analysed(nn.Sequential(*layers), widths[0])


def test_what_runtimes_like(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, width in (("AVX512", 16), ("AVX2", 8), ("DEFAULT", 8)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        assert multiple("auto", "onnxruntime-cpu") == width
    assert [multiple("auto", "cuda"), multiple("auto", "none"), multiple(4, "cuda")] == [8, 1, 4]


def test_every_step_without_rounding() -> None:
    assert by_group(mlp(3, 6, 4, 2), 1) == {"0": [6, 5, 4, 3, 2, 1], "1": [4, 3, 2, 1]}


def test_widths_stay_whole_or_are_multiples() -> None:
    """20 is none itself and stays whole, or goes to 16 or 8; 6 is below the smallest."""
    assert by_group(mlp(3, 20, 6, 16, 2), 8) == {"0": [20, 16, 8], "1": [6], "2": [16, 8]}


class Heads(nn.Module):
    """Three heads of 8 features."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(10, 72), nn.Linear(24, 2)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).view(-1, 5, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def test_dims_of_tensors_are_counted_and_not_the_features_of_a_head() -> None:
    """A feature less per head takes 9 of 72 rows and 3 of 24 columns; a head less 24 rows and 8 columns."""
    assert by_group(analysed(Heads(), 5, 10), 6) == {"qkv": [8, 6, 4, 2], "qkv.blocks": [3]}


def test_groups_of_convolutions_keep_multiples_in_each() -> None:
    """Of 8 channels in each of two groups 4 may stay: 8 rows, and 4 columns for each group."""
    grouped = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1, groups=2), nn.Conv2d(32, 2, 1))
    assert by_group(analysed(grouped, 3, 4, 4), 4)["0"] == [8, 4]
    depthwise = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 2, 1))
    assert by_group(analysed(depthwise, 3, 4, 4), 8) == {"0": [16, 8]}


class Joined(nn.Module):
    """Two layers side by side, and behind them the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 16), nn.Linear(3, 8), nn.Linear(27, 4)

    def forward(self, x: Any) -> Any:
        return self.c(torch.cat([self.a(x), self.b(x), x], 1))


def test_pieces_of_a_concatenation_are_multiples() -> None:
    assert by_group(analysed(Joined(), 3), 8) == {"a": [16, 8], "b": [8]}


def test_what_a_single_cluster_leaves_of_every_dim_is_a_multiple() -> None:
    coupling = mlp(4, 24, 40, 17, 3)
    for cluster, rung in zip(clusters(coupling), rungs(coupling, clusters(coupling), 8), strict=True):
        scores = {name: np.arange(coupling.group(name).size, dtype=float) for name in cluster.groups}
        for step in rung[1:].tolist():
            kept = coupling.kept(coupling.alive(lowest(cluster, scores, step)))
            layers = [index.shape[-1] for name, dims in kept.items() for index in dims.values() if ".weight" in name]
            assert all(n % 8 == 0 for n in layers), layers
            assert set(kept) & set(layer_weights(coupling))
            assert all(attribute(coupling.program.module, name).dim() for name in kept)


def test_shares_of_layers_are_rounded_to_the_nearest() -> None:
    coupling = mlp(3, 32, 2)
    scores = {"0": np.arange(32.0)}
    sizes = {}
    for share in (0.9, 0.7, 0.6):
        removed = fit_layers(coupling, clusters(coupling), scores, {"0.weight": share}, 8)
        sizes[share] = 32 - len(removed.get("0", ()))
    assert sizes == {0.9: 32, 0.7: 24, 0.6: 16}  # 28 lies between 32 and 24, which keeps more
