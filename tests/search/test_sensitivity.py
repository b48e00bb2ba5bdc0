"""Candidates and curves of a multilayer perceptron whose accuracy is known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.data import Split
from compress.graph import analyse, clusters, trace
from compress.search import Bench, families, sensitivities


@pytest.fixture
def bench() -> Bench:
    """4-4-2: hidden unit ``i`` carries class ``i % 2``, so a class is lost with both of its units."""
    first, last = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4))
        last.weight.copy_(torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]]))
    network = nn.Sequential(first, nn.ReLU(), last).eval()
    coupling = analyse(trace(network, (torch.randn(2, 4),)))
    inputs = torch.eye(4)
    return Bench(coupling, clusters(coupling), Split(inputs, torch.tensor([0, 1, 0, 1])), None, torch.device("cpu"))


SCORES = {"0": np.array([1.0, 2.0, 3.0, 4.0])}  # units go in their order


def test_families_are_what_is_cut(bench: Bench) -> None:
    (only,) = families(bench.coupling, bench.clusters)
    assert (only.name, only.groups, only.units, only.steps) == ("0", ("0",), 4, 4)


def test_a_candidate_is_smaller_and_judged(bench: Bench) -> None:
    cut = bench.candidate(SCORES, [2])
    assert cut.units == 2 and cut.module.get_parameter("0.weight").shape == (2, 4)
    # What lost its unit gives zeros for both classes, of which the first is taken
    assert bench.accuracy(cut.module).correct == 3
    whole = bench.candidate(SCORES, [0])
    assert whole.units == 0 and bench.accuracy(whole.module).correct == 4


def test_every_ratio_has_a_point_and_equal_cuts_are_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    candidate = Bench.candidate

    def counted(self: Bench, scores: Any, steps: Any) -> Any:
        made.append(steps)
        return candidate(self, scores, steps)

    monkeypatch.setattr(Bench, "candidate", counted)
    (found,) = sensitivities(bench, SCORES, (0.3, 0.2, 0.5, 0.9))
    assert [(p.ratio, p.removed, p.accuracy) for p in found.points] == [
        (0.3, 1, 1.0), (0.2, 1, 1.0), (0.5, 2, 0.75), (0.9, 3, 0.75),
    ]  # fmt: skip
    assert made == [[1], [2], [3]]


def test_a_cut_that_fails_is_told_and_the_others_are_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = Bench.candidate

    def fragile(self: Bench, scores: Any, steps: Any) -> Any:
        if steps == [2]:
            raise RuntimeError("no kernel\nfor this width")
        return candidate(self, scores, steps)

    monkeypatch.setattr(Bench, "candidate", fragile)
    (found,) = sensitivities(bench, SCORES, (0.25, 0.5, 0.75))
    assert [p.accuracy for p in found.points] == [1.0, None, 0.75]
    assert found.points[1].reason == "RuntimeError: no kernel"


def test_layers_are_refitted_where_samples_are_given(bench: Bench) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(100, 1, generator=generator) * torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    samples[:, 1] = torch.rand(100, generator=generator)
    # Unit 2 follows unit 0 here, so that a refit hands its weight over
    samples[:, 2] = samples[:, 0]
    refitted = Bench(bench.coupling, bench.clusters, bench.judge, samples, bench.device)
    scores = {"0": np.array([1.0, 3.0, 2.0, 4.0])}
    plain, fresh = (b.candidate(scores, [1]).module.get_parameter("2.weight") for b in (bench, refitted))
    assert plain[0].tolist() == [0, 1, 0]
    assert fresh[0, 1].item() == pytest.approx(2.0, abs=0.05)
