"""Grouped convolutions: every group may lose other channels, all lose the same number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.checkpoint.write import load_bundle, write_bundle
from compress.graph import Coupling, macs, parameters, slice_graph, slice_module, verify
from compress.graph.blocks import by_index, clear, select, values_at
from compress.graph.rules import UnbalancedError
from compress.plan import Plan, plan_json
from compress.plugin import Context

X = (2, 3, 8, 8)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


@pytest.fixture(scope="module")
def two(lab: Any) -> nn.Module:
    """conv 3 -> 8, conv 8 -> 8 in two groups, conv 8 -> 2."""
    return lab.randomised(nn.Sequential(conv(3, 8), conv(8, 8, groups=2), conv(8, 2)).eval())


@pytest.fixture(scope="module")
def coupling(lab: Any, two: nn.Module) -> Coupling:
    return lab.analyse(two, torch.randn(X))


def removed(**units: list[int]) -> dict[str, Any]:
    return {name.removeprefix("_").replace("__", "."): np.asarray(index) for name, index in units.items()}


def test_a_view_by_index() -> None:
    weight = torch.arange(2 * 2 * 3.0).reshape(4, 3)  # two blocks of two rows, three columns
    assert by_index(weight, 1, 2)[1, 0].tolist() == [6, 9]
    assert by_index(weight, 0)[0, 1].tolist() == [3, 4, 5]
    assert values_at(weight, 1, 2, np.array([[0, 5]])).tolist() == [[[0, 3], [8, 11]]]
    clear(weight, 1, 2, np.array([4]))
    assert weight.tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 8], [9, 0, 11]]


def test_columns_are_selected_block_by_block() -> None:
    weight = torch.arange(12).reshape(4, 3, 1)
    assert select(weight, 1, np.array([[0, 2], [1, 2]]))[..., 0].tolist() == [[0, 2], [3, 5], [7, 8], [10, 11]]
    assert select(weight, 0, np.array([3]))[..., 0].tolist() == [[9, 10, 11]]


def test_other_channels_may_go_in_each_group(lab: Any, two: nn.Module, coupling: Coupling) -> None:
    """By hand: channel 0 of group 0 and channel 3 of group 1."""
    assert lab.sizes(coupling) == {"0": 8, "0.blocks": 2, "1": 8}
    alive = coupling.alive(removed(_0=[0, 7]))
    kept = coupling.kept(alive)
    assert kept["0.weight"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert kept["1.weight"].keys() == {1}
    assert kept["1.weight"][1].tolist() == [[1, 2, 3], [0, 1, 2]]
    sliced = slice_graph(coupling, alive)
    weight = two.get_parameter("1.weight")
    assert torch.equal(sliced.get_parameter("1.weight"), torch.cat([weight[:4, 1:], weight[4:, :3]]))
    assert verify(coupling, alive, sliced).passed
    assert parameters(coupling) - parameters(coupling, alive) == 2 * (3 * 9 + 1) + 8 * 9
    assert macs(coupling) - macs(coupling, alive) == 64 * (2 * 3 * 9 + 8 * 9)


def test_groups_that_would_keep_different_counts_are_refused(coupling: Coupling) -> None:
    with pytest.raises(UnbalancedError, match=r"1\.weight keep different counts \[3, 4\]"):
        slice_graph(coupling, coupling.alive(removed(_0=[0])))


def test_a_whole_group_and_channels_of_others_go(lab: Any) -> None:
    """The group that goes may have lost none of its own channels, or any number."""
    module = lab.randomised(nn.Sequential(conv(3, 12), conv(12, 6, groups=3), nn.ReLU(), conv(6, 2)).eval())
    coupling = lab.analyse(module, torch.randn(X))
    for own in ([], [4, 5, 6]):
        alive = coupling.alive({"0": np.array([0, 11, *own]), "0.blocks": np.array([1])})
        kept = coupling.kept(alive)["1.weight"]
        assert kept[0].tolist() == [0, 1, 4, 5]
        assert kept[1].tolist() == [[1, 2, 3], [0, 1, 2]]
        sliced = slice_graph(coupling, alive)
        weight = module.get_parameter("1.weight")
        assert torch.equal(sliced.get_parameter("1.weight"), torch.cat([weight[:2, 1:], weight[4:, :3]]))
        assert verify(coupling, alive, sliced).passed
        assert parameters(coupling, alive) == 6 * 28 + 4 * 3 * 9 + 4 + 4 * 2 * 9 + 2
        assert macs(coupling, alive) == 64 * 9 * (6 * 3 + 4 * 3 + 2 * 4)
        small = slice_module(module, coupling, alive, sliced).module
        assert small is not None
        layer: Any = small.get_submodule("1")
        assert (layer.groups, layer.weight.shape) == (2, (4, 3, 3, 3))


def test_the_weights_of_a_unit_are_those_of_its_group(two: nn.Module, coupling: Coupling) -> None:
    context = Context(coupling)
    weights = context.unit_weights(coupling.group("0"))
    assert [w.shape for w in weights] == [(8, 27), (8, 1), (8, 4 * 9)]
    grouped = two.get_parameter("1.weight").detach()
    assert torch.equal(weights[2][0], grouped[:4, 0].flatten())
    assert torch.equal(weights[2][7], grouped[4:, 3].flatten())
    mask = torch.zeros_like(grouped, dtype=torch.bool)
    mask[4:, 1:] = mask[:4, :3] = True
    plan = context.plan_from_masks({"1.weight": mask})
    assert plan.removed["0"].tolist() == [3, 4]  # nothing of these is left in the mask


def test_plan_lists_the_kept_indices_of_every_group(two: nn.Module, coupling: Coupling) -> None:
    plan = Plan(removed(_0=[0, 7], _1=[0, 1, 5, 6]))
    made = json.loads(json.dumps(plan_json(plan, coupling)))
    assert made["kept"]["1.weight"] == {"0": [2, 3, 4, 7], "1": [[1, 2, 3], [0, 1, 2]]}
    sliced = slice_graph(coupling, coupling.alive(plan.removed))
    for name, tensor in two.state_dict().items():
        for dim, kept in sorted(made["kept"].get(name, {}).items()):
            rows = kept if isinstance(kept[0], list) else [kept]
            parts = tensor.chunk(len(rows))
            tensor = torch.cat([p.index_select(int(dim), torch.tensor(r)) for p, r in zip(parts, rows, strict=True)])
        assert torch.equal(tensor, sliced.get_parameter(name)), name


def test_a_bundle_with_groups_is_loaded_again(tmp_path: Path, coupling: Coupling) -> None:
    plan = Plan({"0": np.array([0, 7]), "1": np.array([1, 6])})
    sliced = slice_graph(coupling, coupling.alive(plan.removed))
    bundle = write_bundle(
        tmp_path / "bundle",
        program_module=sliced,
        inputs=[{"shape": list(X[1:]), "dtype": "float32"}],
        plan_json=plan_json(plan, coupling),
        report={},
        recipe_toml="",
        report_md="",
        provenance={},
    )
    x = torch.randn(5, *X[1:])
    with torch.no_grad():
        assert torch.equal(load_bundle(bundle)(x), sliced(x))
    assert json.loads((bundle / "plan.json").read_text())["kept"]["1.weight"]["1"] == [[1, 2, 3], [0, 1, 2]]
