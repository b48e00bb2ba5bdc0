"""Slices of networks that draw random numbers when they are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from compress.graph import slice_module, slice_verified


def autoencoder(lab: Any) -> nn.Module:
    """Variational: it samples its code, whose mean and deviation are outputs."""

    def forward(m: Any, x: Any) -> Any:
        h = torch.relu(m.encode(x))
        mean, deviation = m.mean(h), torch.exp(0.5 * m.log(h))
        return m.decode(torch.relu(m.hidden(mean + torch.randn_like(deviation) * deviation))), mean, deviation

    return lab.network(
        forward, encode=nn.Linear(6, 8), mean=nn.Linear(8, 3), log=nn.Linear(8, 3), hidden=nn.Linear(3, 10),
        decode=nn.Linear(10, 6),
    )  # fmt: skip


def test_a_random_network_is_compared_on_the_same_draws(lab: Any) -> None:
    module, x = autoencoder(lab), torch.randn(2, 6)
    coupling = lab.analyse(module, x)
    removed = {"encode": np.array([0, 5]), "hidden": np.array([1, 2, 9])}
    state = torch.random.get_rng_state()
    found = slice_verified(coupling, removed)
    assert found.verification.passed and set(found.removed) == set(removed) and not found.rolled_back
    in_place = slice_module(module, coupling, found.alive, found.module)
    assert in_place.module is not None, in_place.problem
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's numbers go on as if nothing had been drawn
    small, whole = (m(x)[0] for _ in range(2) for m in (found.module,))
    assert not torch.equal(small, whole)  # it is as random as it was


def test_a_slice_that_draws_other_numbers_is_taken_back(lab: Any) -> None:
    module = lab.network(
        lambda m, x: m.last(m.noisy(x) + torch.rand_like(m.noisy(x))), noisy=nn.Linear(4, 6), last=nn.Linear(6, 2)
    )
    found = slice_verified(lab.analyse(module, torch.randn(2, 4)), {"noisy": np.array([1])})
    assert not found.removed and "differ from the masked original" in found.rolled_back["noisy"]
