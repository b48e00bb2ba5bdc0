"""Networks of pools are pruned in whole pools, exactly, and leave as ONNX like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import compress
from compress.graph import Coupling, Member, analyse, remove_dead, run_masked, slice_verified, trace
from compress.graph.double import as_double
from compress.nn import ChannelOut, Maxout
from tests.nn import architectures

# By network the shape of a sample, and by group its pools and the rows of the weight that one pool holds
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, tuple[int, int]]]] = {
    "maxout": ((64,), {"0.blocks": (10, 4), "2.blocks": (12, 2)}),
    "channel_out": ((64,), {"0.blocks": (10, 4), "2.blocks": (12, 2)}),
    "convolutions": ((1, 8, 8), {"0.blocks": (8, 3), "3.blocks": (6, 4), "6": (20, 1)}),
}


def build(name: str) -> nn.Module:
    """The network with weights, biases and statistics drawn at random."""
    torch.manual_seed(0)
    module: nn.Module = getattr(architectures, name)().eval()
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5, 1.5)
    return module


def coupled(module: nn.Module, shape: tuple[int, ...]) -> Coupling:
    return analyse(trace(module, (torch.randn(2, *shape),)))


@pytest.mark.parametrize("name", NETWORKS)
def test_units_are_whole_pools(name: str) -> None:
    shape, groups = NETWORKS[name]
    coupling = coupled(build(name), shape)
    assert {g.name: (g.size, g.members[0].index.shape[1]) for g in coupling.groups} == groups
    assert not coupling.flow.unruled
    for group in coupling.groups:
        maker: Member = group.members[0]
        neighbours = np.arange(maker.index.size).reshape(maker.index.shape)
        assert np.array_equal(maker.index, neighbours)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_slice_equals_the_masked_original(name: str, ratio: float) -> None:
    shape, _ = NETWORKS[name]
    coupling = coupled(build(name), shape)
    rng = np.random.default_rng(0)
    removed = {g.name: rng.permutation(g.size)[: int(ratio * g.size)] for g in coupling.groups}
    outcome = slice_verified(coupling, removed)
    assert not outcome.rolled_back
    inputs = [torch.randn(9, *shape)]
    (expected,) = run_masked(coupling, outcome.alive, inputs)
    found = as_double(outcome.module)(inputs[0].double())
    assert found.shape == (9, 10)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [Maxout(2), ChannelOut(2), ChannelOut(2, absmax=True)], ids=repr)
def test_a_dead_piece_still_competes(activation: nn.Module) -> None:
    """Of four pools one piece is without inputs, which stays, and one pool whole, which goes, its constant carried."""
    torch.manual_seed(0)
    width = 4 if isinstance(activation, Maxout) else 8
    coupling = coupled(nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(width, 3)).eval(), (6,))
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[0] = mask[2] = mask[3] = False
    dead = remove_dead(coupling, {"0.weight": mask})
    assert {n: u.tolist() for n, u in dead.removed.items()} == {"0.blocks": [1]}
    assert dead.carried == {"0.blocks": 1}
    assert dead.verification.error < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_from_checkpoint_to_onnx(
    name: str, tmp_path: Path, invoke: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    # One is loaded in a process of its own
    request.getfixturevalue("briefly" if name == "channel_out" else "fast")
    shape, groups = NETWORKS[name]
    save_file(build(name).state_dict(), tmp_path / "net.safetensors")
    source = (str(tmp_path / "net.safetensors"), "--arch", f"{architectures.__file__}:{name}")
    bundle = tmp_path / "small"
    words = ("--input-shape", ",".join(map(str, shape)), "--ratio", "0.5", "-o", str(bundle))
    done = invoke("prune", *source, *words)
    assert done.code == 0, done.err
    exported = invoke("export", str(bundle), "--onnx")
    assert exported.code == 0, exported.err

    report = json.loads((bundle / "report.json").read_text("utf-8"))
    assert report["verification"]["slice"] < 1e-12
    small = compress.load(bundle)
    rows = {n: p.shape[0] for n, p in small.named_parameters() if n.endswith("weight")}
    assert {g: rows[f"{g.removesuffix('.blocks')}.weight"] for g in groups} == {
        g: pools // 2 * pool for g, (pools, pool) in groups.items()
    }
    x = torch.randn(5, *shape)
    (found,) = onnxruntime.InferenceSession(bundle / "model.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), small(x).detach(), rtol=0, atol=1e-5)
