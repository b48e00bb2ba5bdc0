"""The annealing study of ADP: its losses, its two ways, its page."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from compress.data import Split
from compress.schedules import annealed


@pytest.fixture(scope="module")
def runs() -> Any:
    return importlib.import_module("adp_runs")


@pytest.fixture(scope="module")
def networks() -> Any:
    return importlib.import_module("adp_network")


def samples(count: int) -> Split:
    x = torch.randn(count, 12, generator=torch.Generator().manual_seed(count))
    return Split(x, x[:, :4].argmax(1))


def test_softmax_twice(networks: Any) -> None:
    """A perfect, saturated prediction, one that is as wrong as can be, and none at all, of 10 classes."""
    right, wrong = (100 * torch.nn.functional.one_hot(torch.tensor([i]), 10).float() for i in (3, 4))
    found = [float(networks.double_softmax_loss(scores, torch.tensor([3]))) for scores in (right, wrong, 0 * right)]
    assert found == pytest.approx([1.46115, 2.46115, 2.30259], abs=1e-5)
    assert found[0] == pytest.approx(math.log(math.e + 9) - 1)


def test_the_smaller_network(runs: Any) -> None:
    assert runs.narrow_width(1200, 10) == 847 and 847 * 847 + 847 * 10 == 725_879


@pytest.mark.parametrize("case", [{}, {"stacked": True}, {"rich": True}, {"variant": "before"}, {"variant": "scratch"}])
def test_both_ways(runs: Any, case: dict[str, Any]) -> None:
    sizes = runs.Sizes(epochs=4, width=20, batch=20, rate=0.1, legacy_batch=20, legacy_rate=1.0)
    weights, kept = 20 * 20 + 20 * 4, 240
    legacy, right = (
        run(runs.Case(**case), sizes, samples(200), samples(80), 4, 0)
        for run in (runs.as_the_code_does, runs.done_right)
    )
    if not case or case == {"rich": True}:  # counted by layer: 400 and 80
        counts = [annealed(i, 4, 400, 200, 10) + annealed(i, 4, 80, 40, 10) for i in range(5)]
        assert list(legacy.kept) == [weights, *counts[1:4]] and list(right.kept) == counts[1:]
    if case.get("variant"):
        assert set(legacy.kept) == set(right.kept) == {kept}
    assert legacy.kept[-1] == right.kept[-1] == kept
    assert 0.25 < right.accuracy <= 1 and right.best < math.log(4)


def test_as_coded_layers_behind_the_first_are_never_trained(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    look: Callable[..., None] = runs.Watch.look

    def remember(watch: Any, model: torch.nn.Module) -> None:
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        look(watch, model)

    monkeypatch.setattr(runs.Watch, "look", remember)
    sizes = runs.Sizes(epochs=2, width=20, batch=20, rate=0.1, legacy_batch=20, legacy_rate=1.0)
    runs.as_the_code_does(runs.Case(keep=1.0), sizes, samples(100), samples(20), 4, 0)
    first, last = seen
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {"0.weight", "0.bias", "2.bias", "4.bias"}
    seen.clear()
    runs.done_right(runs.Case(keep=1.0), sizes, samples(100), samples(20), 4, 0)
    first, last = seen
    assert all(not torch.equal(first[name], last[name]) for name in first)
