"""From scores and a budget to units, on a multilayer perceptron 3-8-6-2 and a network with heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.budget import Budget, fit, fit_layers, prunable
from compress.errors import InputError, ModelError
from compress.graph import Coupling, analyse, clusters, macs, parameters, trace


@pytest.fixture(scope="module")
def mlp() -> Coupling:
    layers = [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)]
    return analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, 3),)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 8) for _ in range(3))
        self.o = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        q, k, v = (f(x).view(-1, 3, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.fixture(scope="module")
def attention() -> Coupling:
    return analyse(trace(Attention().eval(), (torch.randn(2, 3, 4),)))


def rising(coupling: Coupling) -> dict[str, Any]:
    """The first units are the least important."""
    return {g.name: np.arange(g.size, dtype=float) for g in coupling.groups}


def lengths(removed: Any) -> dict[str, int]:
    return {n: len(u) for n, u in removed.items()}


@pytest.mark.parametrize(
    ("kind", "value", "match"),
    [("ratio", 0.0, "--ratio"), ("ratio", 1.0, "--ratio"), ("macs", 0.0, "--macs"), ("bytes", -1.0, "--bytes")],
)
def test_budgets_out_of_range(kind: Any, value: float, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Budget(kind, value)


@pytest.mark.parametrize(("ratio", "gone"), [(0.5, (4, 3)), (0.3, (2, 2)), (0.01, ()), (0.99, (7, 5))])
def test_ratio_is_the_same_in_every_group_and_something_stays(mlp: Coupling, ratio: float, gone: Any) -> None:
    removed = fit(mlp, clusters(mlp), rising(mlp), Budget("ratio", ratio))
    assert lengths(removed) == dict(zip(("0", "2"), gone, strict=False))
    assert all(u.tolist() == list(range(len(u))) for u in removed.values())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["macs", "params", "bytes"])
def test_budget_is_met_within_a_step(mlp: Coupling, kind: Any, share: float) -> None:
    measure = macs if kind == "macs" else parameters
    removed = fit(mlp, clusters(mlp), rising(mlp), Budget(kind, share))
    assert measure(mlp, mlp.alive(removed)) <= share * measure(mlp)
    less = {n: u[1:] for n, u in removed.items()}
    assert measure(mlp, mlp.alive(less)) > share * measure(mlp)


def test_absolute_budgets(mlp: Coupling) -> None:
    assert parameters(mlp) == 100
    for budget in (Budget("params", 50), Budget("bytes", 200), Budget("params", 0.5)):
        removed = fit(mlp, clusters(mlp), rising(mlp), budget)
        assert parameters(mlp, mlp.alive(removed)) <= 50
    assert fit(mlp, clusters(mlp), rising(mlp), Budget("params", 100)) == {}


def test_budget_out_of_reach_says_what_would_be_needed(mlp: Coupling) -> None:
    """One unit in each layer: 4 + 2 + 4 parameters."""
    with pytest.raises(ModelError, match=r"--params 9 cannot be met: .* still need 10"):
        fit(mlp, clusters(mlp), rising(mlp), Budget("params", 9))
    assert lengths(fit(mlp, clusters(mlp), rising(mlp), Budget("params", 10))) == {"0": 7, "2": 5}


def test_piece_of_a_split_is_never_emptied() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.i, self.a, self.b = nn.Linear(3, 8), nn.Linear(2, 2), nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            a, b = self.i(x).relu().split([2, 6], 1)
            return self.a(a) + self.b(b)

    coupling = analyse(trace(Split().eval(), (torch.randn(2, 3),)))
    removed = fit(coupling, clusters(coupling), rising(coupling), Budget("ratio", 0.999))
    kept = coupling.kept(coupling.alive(removed))["i.weight"][0]
    assert (kept < 2).any()
    assert (kept >= 2).any()


def test_globs(mlp: Coupling) -> None:
    found = clusters(mlp)
    assert [c.groups for c in prunable(mlp, found)] == [("0",), ("2",)]
    assert [c.groups for c in prunable(mlp, found, only=["2"])] == [("2",)]
    assert [c.groups for c in prunable(mlp, found, exclude=["2"])] == [("0",)]
    assert [c.groups for c in prunable(mlp, found, only=["[02]"], exclude=["0"])] == [("2",)]


def test_a_layer_that_stays_anyway_may_be_excluded(mlp: Coupling) -> None:
    assert [c.groups for c in prunable(mlp, clusters(mlp), exclude=["4", "0"])] == [("2",)]  # 4 gives the output
    with pytest.raises(InputError, match="no prunable layer matches '4'"):
        prunable(mlp, clusters(mlp), only=["4"])


def test_glob_that_matches_nothing(attention: Coupling) -> None:
    with pytest.raises(InputError, match="no prunable layer matches 'qq'") as raised:
        prunable(attention, clusters(attention), only=["qq"])
    assert raised.value.hint == "did you mean q?"
    with pytest.raises(InputError) as raised:
        prunable(attention, clusters(attention), exclude=["zzzz*"])
    assert raised.value.hint.startswith("layers are named like k, q, q.blocks")


def test_nothing_left_to_prune(mlp: Coupling) -> None:
    with pytest.raises(ModelError, match="nothing to prune"):
        prunable(mlp, clusters(mlp), exclude=["*"])


def test_features_of_heads_go_before_whole_heads(attention: Coupling) -> None:
    names = {g for c in prunable(attention, clusters(attention)) for g in c.groups}
    assert names == {"q", "v"}


def test_layers_may_be_named_by_any_layer_they_shrink(attention: Coupling) -> None:
    (cluster,) = prunable(attention, clusters(attention), only=["k"])
    assert cluster.groups == ("q",)


@pytest.mark.parametrize(
    ("shares", "gone"),
    [
        ({"0.weight": 0.5}, {"0": 4}),  # 8 rows, only its rows can go
        ({"0.weight": 0.51}, {"0": 4}),  # 4 of 8 is the first step within 51 %
        ({"4.weight": 0.5}, {"2": 3}),
        ({"0.weight": 1.0, "4.weight": 1.0}, {}),
        ({"0.weight": 0.0}, {"0": 7}),  # something always stays
        ({"0.weight": 0.25, "4.weight": 0.5}, {"0": 6, "2": 3}),
    ],
)
def test_layers_fit_their_shares(mlp: Coupling, shares: Any, gone: Any) -> None:
    assert lengths(fit_layers(mlp, clusters(mlp), rising(mlp), shares)) == gone


def test_a_layer_with_two_dims_to_shrink_loses_where_it_costs_least(mlp: Coupling) -> None:
    flat = {"0": np.ones(8), "2": np.ones(6)}
    cheap_rows = {"0": np.ones(8), "2": np.array([0.0, 0, 0, 1, 1, 1])}
    for scores in (flat, cheap_rows):
        removed = fit_layers(mlp, clusters(mlp), scores, {"2.weight": 0.5})
        left = (1 - len(removed.get("0", ())) / 8) * (1 - len(removed.get("2", ())) / 6)
        assert left <= 0.5
    assert lengths(removed) == {"2": 3}


def test_shares_of_unknown_layers_do_nothing(mlp: Coupling) -> None:
    assert fit_layers(mlp, clusters(mlp)[:1], rising(mlp), {"4.weight": 0.1}) == {}
