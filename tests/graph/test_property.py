"""Random networks: whatever is put together, the slice is exact, and takes any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.generator import CONSTRUCTS, Network, draw_network


def exact(lab: Any, network: Network, ratio: float) -> Any:
    coupling = lab.analyse(network.module, *network.inputs)
    outcome = lab.cut(network.module, coupling, ratio)
    assert outcome.verification.passed, (network.recipe, outcome.verification)
    if coupling.program.dynamic_batch:
        outputs = lab.leaves(outcome.sliced(*network.more(3)))
        assert all(len(y) == 3 for y in outputs), network.recipe
    return coupling


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 8), ratio=st.sampled_from([0.2, 0.5, 0.9]))
def test_any_network_is_exact(lab: Any, seed: int, size: int, ratio: float) -> None:
    exact(lab, draw_network(seed, size), ratio)


@pytest.mark.parametrize("name", sorted(CONSTRUCTS))
def test_every_construct_is_exact_by_itself(lab: Any, name: str) -> None:
    """Between layers that could shrink; a construct that fits no drawn input would be of no use."""
    drawn = (draw_network(seed, 1, only=name) for seed in range(20))
    exact(lab, next(network for network in drawn if name in network.recipe), 0.5)


def test_a_seed_always_draws_the_same_network() -> None:
    first, second = draw_network(7), draw_network(7)
    assert first.recipe == second.recipe
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
    states = first.module.state_dict(), second.module.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_smaller_size_is_the_beginning_of_the_same_network() -> None:
    whole, part = draw_network(11, 6), draw_network(11, 3)
    steps = [name for name in part.recipe if name not in ("head", "stem", "patches", "embedding")]
    assert len(steps) == 3
    assert [name for name in whole.recipe if name in CONSTRUCTS][:3] == steps
