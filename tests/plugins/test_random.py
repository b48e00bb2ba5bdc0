from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plugin import Context
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
