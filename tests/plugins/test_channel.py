"""Channel pruning against pools written out one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import analyse, trace
from compress.plugin import Context, make_plan
from compress.sparsity import two_of_four
from compress.testing import check_plugin
from compress_plugins.channel import Channel


def reference(rows: list[list[int]], size: int) -> list[list[bool]]:
    found = []
    for row in rows:
        keep = [False] * len(row)
        for start in range(0, len(row), size):
            pool = range(start, min(start + size, len(row)))
            keep[max(pool, key=lambda i: abs(row[i]))] = True  # of equal ones the first
        found.append(keep)
    return found


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 13), st.integers(2, 8))
def test_agrees_with_the_definition(data: Any, outputs: int, inputs: int, size: int) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(-9, 9), min_size=inputs, max_size=inputs), min_size=outputs,
                              max_size=outputs))  # fmt: skip
    mask, note = Channel(size).mask(torch.tensor(rows, dtype=torch.float32))
    assert mask.tolist() == reference(rows, size)
    assert int(mask.sum()) == outputs * -(-inputs // size)
    counts = (sum(w != 0 for row in rows for w in row), int((torch.tensor(rows)[mask] != 0).sum()))
    assert (note["weights"], note["kept_weights"]) == counts  # what was zero is neither


def test_the_counts_of_the_paper() -> None:
    """784-1200-1200-10 without its first layer: 1,452,000 weights, of which every pool keeps one."""
    layers = (nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 10))
    seen = Context(analyse(trace(nn.Sequential(*layers).eval(), (torch.zeros(2, 784),))), granularity="weight")
    for size, kept in ((2, 726_000), (3, 484_000), (4, 363_000), (8, 181_500)):
        masks = make_plan(Channel(size), seen).masks
        assert set(masks) == {"2.weight", "4.weight"} and sum(int(m.sum()) for m in masks.values()) == kept
        assert all(bool((m.unflatten(1, (-1, size)).sum(2) == 1).all()) for m in masks.values())


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10**6))
def test_pools_of_two_are_a_two_of_four_pattern(outputs: int, inputs: int, seed: int) -> None:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    mask, _ = Channel(2).mask(weight)
    assert two_of_four(mask) is (inputs > 1)
    for row in mask.tolist():
        assert all(sum(row[i : i + 4]) <= 2 for i in range(0, inputs, 4))


def test_pools_of_three_are_none() -> None:
    """Pools 012 and 345 may keep 2 and 3, and then two of 0..3 stay; pools of one weight keep all."""
    assert two_of_four(torch.tensor([[False, False, True, True, False, False]]))
    assert not two_of_four(torch.ones(3, 2))  # without a zero
    assert not two_of_four(torch.tensor([[True, False, True, True]]))
    assert not two_of_four(torch.tensor([[True, True, False, False, True, True, True]]))


def test_convolutions_and_weights_with_outputs_behind() -> None:
    weight = torch.arange(1.0, 13.0).reshape(2, 3, 1, 2)
    mask, note = Channel(4).mask(weight)
    assert mask.flatten(1).int().tolist() == [[0, 0, 0, 1, 0, 1]] * 2
    assert note["fan_in"] == 6
    flipped, _ = Channel(4).mask(weight.flatten(1).T.contiguous(), output_dim=1)
    assert torch.equal(flipped.T, mask.flatten(1))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2)).eval()


def context(**options: Any) -> Context:
    return Context(analyse(trace(net(), (torch.randn(2, 8),))), **options)


def test_the_first_layer_and_biases_stay_whole() -> None:
    seen = context(granularity="weight")
    plan = make_plan(Channel(4), seen)
    assert {n: int(m.sum()) for n, m in plan.masks.items()} == {"2.weight": 48, "4.weight": 6}
    assert "reads the model's input" in plan.notes["0.weight"]["whole"]
    assert set(make_plan(Channel(4, True), seen).masks) == {"0.weight", "2.weight", "4.weight"}
    only = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    first = Context(analyse(trace(only, (torch.randn(2, 8),))))
    assert set(make_plan(Channel(), dataclasses.replace(first, granularity="weight")).masks) == {"2.weight"}


def test_units_go_by_the_share_that_survives() -> None:
    """Of the second layer's 192 weights a quarter stays, of the third's as well; the first keeps its inputs."""
    plan = make_plan(Channel(4), context())
    left = {name: 16 - len(u) if name == "0" else 12 - len(u) for name, u in plan.removed.items()}
    assert left["0"] * left["2"] <= 192 / 4
    assert left["2"] * 2 <= 24 / 4
    assert left["0"] * left["2"] > 192 / 4 * 0.75


class Similarity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.q(x) @ self.k(x).transpose(1, 2)
        return out


def test_nothing_but_the_first_layer() -> None:
    seen = Context(analyse(trace(Similarity().eval(), (torch.randn(2, 3, 4),))), granularity="weight")
    with pytest.raises(ModelError, match="only the first layer could be pruned"):
        make_plan(Channel(), seen)
    assert set(make_plan(Channel(first_layer=True), seen).masks) == {"q.weight", "k.weight"}


def test_a_pool_of_one_is_no_pool() -> None:
    with pytest.raises(ValueError, match="pool_size: must be at least 2"):
        Channel(1)


@pytest.mark.parametrize("method", [Channel(), Channel(3, True)])
def test_conformance(method: Channel) -> None:
    check_plugin(method)
