from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.graph import analyse, trace


@pytest.fixture(scope="module")
def mlp(lab: Any) -> Any:
    module = lab.randomised(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval())
    return lab.analyse(module, torch.randn(2, 3))


def test_members_are_everything_a_unit_holds(mlp: Any) -> None:
    (group,) = mlp.groups
    assert (group.name, group.size, group.kind) == ("0", 4, "channels")
    assert {(m.tensor, m.dim) for m in group.members} == {
        ("0.weight", 0),
        ("0.bias", 0),
        ("1.weight", 0),
        ("1.bias", 0),
        ("1.running_mean", 0),
        ("1.running_var", 0),
        ("3.weight", 1),
    }
    assert all(m.index.tolist() == [[0], [1], [2], [3]] for m in group.members)
    assert mlp.layers_of("0") == ["0", "1"]


def test_kept_says_what_stays_of_every_tensor(mlp: Any) -> None:
    kept = mlp.kept(mlp.alive({"0": [1, 3]}))
    assert set(kept) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight"}
    assert {d: i.tolist() for d, i in kept["3.weight"].items()} == {1: [0, 2]}
    assert mlp.kept(mlp.alive({})) == {}


def test_unknown_group(mlp: Any) -> None:
    with pytest.raises(KeyError, match="nothing"):
        mlp.group("nothing")


def test_frozen_dims_have_reasons(mlp: Any) -> None:
    reasons = {(f.tensor, f.dim): f.reason for f in mlp.frozen}
    assert reasons[("0.weight", 1)] == "meets the network's input, whose size is given along this dimension"
    assert reasons[("3.weight", 0)] == "an output of the network keeps its size"
    assert {f.where for f in mlp.frozen} == {"0", ""}


def test_flattened_feature_maps_give_several_columns_to_a_channel(lab: Any) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).eval()
    (group,) = lab.analyse(module, torch.randn(2, 1, 4, 4)).groups
    columns = next(m for m in group.members if m.tensor == "2.weight")
    assert columns.index.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_heads_and_features_inside_them_overlap(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        q, k, v = (f(x).view(-1, 3, 2, 2).transpose(1, 2) for f in (m.q, m.k, m.v))
        return m.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    module = lab.network(forward, q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4), o=nn.Linear(4, 2))
    coupling = lab.analyse(module, torch.randn(2, 3, 4))
    heads = coupling.group("q.blocks")
    assert heads.kind == "blocks"
    rows = next(m for m in heads.members if m.tensor == "q.weight")
    assert rows.index.tolist() == [[0, 1], [2, 3]]
    assert coupling.overlaps == {
        "q.blocks": frozenset({"q", "v"}),
        "q": frozenset({"q.blocks"}),
        "v": frozenset({"q.blocks"}),
    }
    alive = coupling.alive({"q.blocks": [0]})
    assert coupling.kept(alive)["o.weight"][1].tolist() == [2, 3]


def test_transposed_convolution_names_its_own_outputs(lab: Any) -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ConvTranspose1d(3, 5, 1, bias=False), nn.Conv1d(5, 2, 1)).eval()
    coupling = lab.analyse(module, torch.randn(2, 2, 4))
    assert lab.sizes(coupling) == {"0": 3, "1": 5}
    assert coupling.layers_of("1") == ["1"]


def test_network_without_units(lab: Any) -> None:
    coupling = lab.analyse(nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)).eval(), torch.randn(2, 3))
    assert coupling.groups == ()
    assert coupling.alive({}).all()
    assert isinstance(coupling.alive({}), np.ndarray)


def test_weight_that_makes_the_units_comes_first(lab: Any) -> None:
    """A class token is read before the patches are, but the patch embedding makes the features."""
    module = lab.network(
        lambda m, x: m.head(torch.cat([m.token.expand(x.shape[0], -1, -1), m.patches(x)], 1)[:, 0]),
        token=nn.Parameter(torch.zeros(1, 1, 6)),
        patches=nn.Linear(4, 6),
        head=nn.Linear(6, 2),
    )
    (group,) = lab.analyse(module, torch.randn(2, 3, 4)).groups
    assert group.name == "patches"
    assert (group.members[0].tensor, group.members[0].dim) == ("patches.weight", 0)
    assert {m.tensor for m in group.members} == {"patches.weight", "patches.bias", "token", "head.weight"}


def test_rows_of_a_table_beyond_the_example_stay() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(10, 6))
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x) + self.table[:5])
            return out

    coupling = analyse(trace(Positions().eval(), (torch.randn(2, 5, 4),)))
    assert not any(m.tensor == "table" and m.dim == 0 for g in coupling.groups for m in g.members)
    assert ("table", 0, 5) in {(f.tensor, f.dim, f.indices) for f in coupling.frozen if not f.op}
