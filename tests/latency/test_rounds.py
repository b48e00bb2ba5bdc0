"""The loop around a latency budget, with clocks that tell what they are told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import Coupling
from compress.latency import LatencyModel, meet, tables
from compress.measure import Latency, LatencyPair

LAYERS = 1e-9 * (324 + 3 * 864)  # of the network, by the clock of the tests


@pytest.fixture
def model(analysed: Callable[..., Coupling], convnet: nn.Module, clock: Any) -> LatencyModel:
    return tables(analysed(convnet, torch.zeros(2, 3, 6, 6)), timer=clock(LAYERS))


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], float]], None]:
    """Real networks take what a function makes of their prediction; the number of removed units is the network."""

    @contextlib.contextmanager
    def running(module: Any, *_: Any) -> Iterator[Any]:
        yield module

    def put(truth: Callable[[float], float]) -> None:
        def in_turns(first: Any, second: Any, *_: Any, **__: Any) -> LatencyPair:
            before, after = (Latency(s, s, 20, 1, 1, "onnxruntime") for s in (truth(LAYERS), truth(second)))
            return LatencyPair(before, after, before.p50 / after.p50, before.p50 / after.p50)

        monkeypatch.setattr("compress.latency.rounds.running", running)
        monkeypatch.setattr("compress.latency.rounds.in_turns", in_turns)

    return put


def fitted(model: LatencyModel, aims: list[float]) -> Callable[[float], Any]:
    """Removes as many units of the first two groups as the prediction needs."""

    def fit(limit: float) -> Any:
        aims.append(limit)
        for n in range(15):
            removed = {"0": np.arange(min(n, 7)), "2": np.arange(max(n - 7, 0))}
            if model.predict(model.coupling.alive(removed)) <= limit:
                return {name: units for name, units in removed.items() if len(units)}
        raise ModelError("the smallest is too large")

    return fit


def predicted(model: LatencyModel) -> Callable[[Any], Any]:
    return lambda removed: model.predict(model.coupling.alive(removed))


def test_a_good_prediction_is_met_at_once(model: LatencyModel, real: Any) -> None:
    real(lambda seconds: seconds)
    aims: list[float] = []
    met = meet(model, 0.8, fitted(model, aims), predicted(model))
    assert aims == [pytest.approx(0.8 * LAYERS)] and len(met.rounds) == 1
    assert 0.95 * met.limit <= met.speed.after.p50 <= met.limit
    assert met.module == met.rounds[0].predicted == met.rounds[0].measured


def test_the_limit_is_corrected_by_what_was_measured(model: LatencyModel, real: Any) -> None:
    real(lambda seconds: seconds if seconds == LAYERS else 1.2 * seconds)
    aims: list[float] = []
    met = meet(model, 0.8, fitted(model, aims), predicted(model))
    first = met.rounds[0]
    assert first.measured == pytest.approx(1.2 * first.predicted) and first.measured > met.limit
    assert aims[1] == pytest.approx(0.975 * met.limit / 1.2)
    assert met.rounds[-1].measured <= met.limit == pytest.approx(0.8 * LAYERS)
    assert len(aims) <= 3


def test_what_lost_too_much_gets_some_back(model: LatencyModel, real: Any) -> None:
    real(lambda seconds: seconds if seconds == LAYERS else 0.8 * seconds)
    aims: list[float] = []
    met = meet(model, 0.7, fitted(model, aims), predicted(model))
    assert aims[1] > aims[0]
    assert met.module > met.rounds[0].predicted  # the slower one that is still within the budget
    assert met.speed.after.p50 <= met.limit


def test_a_time_is_a_time(model: LatencyModel, real: Any) -> None:
    """The machine got slower since the tables were made: a fraction does not notice, a time does."""
    real(lambda seconds: 1e3 * seconds)
    share = meet(model, 0.8, fitted(model, []), predicted(model))
    assert len(share.rounds) == 1
    aims: list[float] = []
    met = meet(model, 1e9 * 0.8 * LAYERS, fitted(model, aims), predicted(model))
    assert met.limit == pytest.approx(1e3 * 0.8 * LAYERS) and met.speed.after.p50 <= met.limit
    assert not met.removed or len(aims) > 1


@pytest.mark.parametrize(("slower", "met"), [(0.9, True), (1.2, False)])
def test_a_corrected_aim_that_is_out_of_reach(model: LatencyModel, real: Any, slower: float, met: bool) -> None:
    """What was within the budget in the first round counts; else the message is about the budget, not the aim."""
    real(lambda seconds: seconds if seconds == LAYERS else slower * seconds)
    aims: list[float] = []
    fit = fitted(model, aims)

    def once(limit: float) -> Any:
        if aims:
            raise ModelError("this aim is too small")
        return fit(limit)

    if met:
        found = meet(model, 0.7, once, predicted(model))
        assert len(found.rounds) == 1 and found.speed.after.p50 <= found.limit
    else:
        with pytest.raises(ModelError, match=r"was not met in 1 round: the nearest network takes"):
            meet(model, 0.7, once, predicted(model))


def test_out_of_reach(model: LatencyModel, real: Any) -> None:
    real(lambda seconds: seconds if seconds == LAYERS else 0.9 * LAYERS)
    with pytest.raises(ModelError, match=r"was not met in 3 rounds: the nearest network takes"):
        meet(model, 0.89, fitted(model, []), predicted(model))
    with pytest.raises(ModelError, match="the smallest is too large"):
        meet(model, 0.01, fitted(model, []), predicted(model))
