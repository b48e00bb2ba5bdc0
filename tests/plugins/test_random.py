from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plugin import Budget, Context, make_plan
from compress.testing import check_plugin
from compress_plugins.random import Random


@pytest.fixture(scope="module")
def context() -> Context:
    layers = [nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)]
    return Context(analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, 3),))))


def test_same_seed_same_scores(context: Context) -> None:
    for group in context.groups:
        assert torch.equal(Random().score(group, context), Random().score(group, context))


def test_seeds_and_groups_differ(context: Context) -> None:
    first, second = context.groups
    other = dataclasses.replace(context, seed=1)
    assert not torch.equal(Random().score(first, context), Random().score(first, other))
    assert not torch.equal(Random().score(first, context), Random().score(second, context))


@pytest.mark.parametrize("seed", [2**31, 2**32, 2**40 + 1, -3])
def test_any_seed(context: Context, seed: int) -> None:
    scores = Random().score(context.groups[0], dataclasses.replace(context, seed=seed))
    assert ((scores >= 0) & (scores < 1)).all()


def test_single_weights(context: Context) -> None:
    """A quarter of every layer, other weights for another seed of the command."""
    single = dataclasses.replace(context, granularity="weight", budget=Budget("ratio", 0.25))
    first, again = make_plan(Random(), single).masks, make_plan(Random(), single).masks
    other = make_plan(Random(), dataclasses.replace(single, seed=1)).masks
    assert {n: int((~m).sum()) for n, m in first.items()} == {"0.weight": 12, "2.weight": 64, "4.weight": 8}
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not any(torch.equal(first[n], other[n]) for n in first)


def test_conformance() -> None:
    check_plugin(Random())
