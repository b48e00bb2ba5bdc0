"""The loop around a latency budget, with clocks that tell what they are told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import Coupling
from compress.latency import LatencyModel, counted, meet, tables
from compress.measure import Latency, LatencyPair
from compress.plan import Plan

LAYERS = 1e-9 * (324 + 3 * 864)  # of the network, by the clock of the tests


@dataclass
class Tries:
    """A method that removes as many units of the first two groups as the prediction needs, and what it was asked."""

    model: LatencyModel
    truth: Callable[[float], float]
    aims: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    def fit(self, limit: float) -> Plan:
        self.aims.append(limit)
        for n in range(15):
            removed = {"0": np.arange(min(n, 7)), "2": np.arange(max(n - 7, 0))}
            if self._seconds(removed) <= limit:
                return Plan({name: units for name, units in removed.items() if len(units)})
        raise ModelError("the smallest is too large")

    def cut(self, removed: Any) -> Any:
        self.predicted.append(self._seconds(removed))
        return self.predicted[-1]

    def meet(self, budget: float, fit: Callable[[float], Plan] | None = None) -> tuple[float, float]:
        """Predicted and real seconds of the network that is found."""
        found = self._seconds(meet(self.model, budget, fit or self.fit, self.cut).removed)
        return found, self.truth(found)

    def _seconds(self, removed: Any) -> float:
        return self.model.predict(self.model.coupling.alive(removed))


@pytest.fixture
def model(analysed: Callable[..., Coupling], convnet: nn.Module, clock: Any) -> LatencyModel:
    return tables(analysed(convnet, torch.zeros(2, 3, 6, 6)), timer=clock(LAYERS))


@pytest.fixture
def tries(model: LatencyModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], float]], Tries]:
    """Real networks take what a function makes of their prediction, which stands for the network."""

    @contextlib.contextmanager
    def running(module: Any, *_: Any) -> Iterator[Any]:
        yield module

    def put(truth: Callable[[float], float]) -> Tries:
        def in_turns(first: Any, second: Any, *_: Any, **__: Any) -> LatencyPair:
            before, after = (Latency(s, s, 20, 1, 1, "onnxruntime") for s in (truth(LAYERS), truth(second)))
            return LatencyPair(before, after, before.p50 / after.p50, before.p50 / after.p50)

        monkeypatch.setattr("compress.latency.rounds.running", running)
        monkeypatch.setattr("compress.latency.rounds.in_turns", in_turns)
        return Tries(model, truth)

    return put


def test_a_good_prediction_is_met_at_once(tries: Any) -> None:
    made = tries(lambda seconds: seconds)
    _, real = made.meet(0.8)
    assert made.aims == [pytest.approx(0.8 * LAYERS)] and len(made.predicted) == 1
    assert 0.95 * 0.8 * LAYERS <= real <= 0.8 * LAYERS


def test_the_limit_is_corrected_by_what_was_measured(tries: Any) -> None:
    made = tries(lambda seconds: seconds if seconds == LAYERS else 1.2 * seconds)
    _, real = made.meet(0.8)
    first = made.truth(made.predicted[0])
    assert first == pytest.approx(1.2 * made.predicted[0]) and first > 0.8 * LAYERS
    assert made.aims[1] == pytest.approx(0.975 * 0.8 * LAYERS / 1.2)
    assert real <= 0.8 * LAYERS and len(made.aims) <= 3


def test_what_lost_too_much_gets_some_back(tries: Any) -> None:
    made = tries(lambda seconds: seconds if seconds == LAYERS else 0.8 * seconds)
    predicted, real = made.meet(0.7)
    assert made.aims[1] > made.aims[0]
    assert predicted > made.predicted[0]  # the slower one that is still within the budget
    assert real <= 0.7 * LAYERS


def test_a_time_is_a_time(tries: Any) -> None:
    """The machine got slower since the tables were made: a fraction does not notice, a time does."""
    share = tries(lambda seconds: 1e3 * seconds)
    share.meet(0.8)
    assert len(share.predicted) == 1
    made = tries(lambda seconds: 1e3 * seconds)
    predicted, real = made.meet(1e9 * 0.8 * LAYERS)
    assert real <= 1e3 * 0.8 * LAYERS
    assert predicted == LAYERS or len(made.aims) > 1


@pytest.mark.parametrize(("slower", "met"), [(0.9, True), (1.2, False)])
def test_a_corrected_aim_that_is_out_of_reach(tries: Any, slower: float, met: bool) -> None:
    """What was within the budget in the first round counts; else the message is about the budget, not the aim."""
    made = tries(lambda seconds: seconds if seconds == LAYERS else slower * seconds)

    def once(limit: float) -> Plan:
        if made.aims:
            raise ModelError("this aim is too small")
        return made.fit(limit)

    if met:
        _, real = made.meet(0.7, once)
        assert len(made.predicted) == 1 and real <= 0.7 * LAYERS
    else:
        with pytest.raises(ModelError, match=r"was not met in 1 round: the nearest network takes"):
            made.meet(0.7, once)


def test_out_of_reach(tries: Any) -> None:
    made = tries(lambda seconds: seconds if seconds == LAYERS else 0.9 * LAYERS)
    with pytest.raises(ModelError, match=r"was not met in 3 rounds: the nearest network takes"):
        made.meet(0.89)
    with pytest.raises(ModelError, match="the smallest is too large"):
        made.meet(0.01)


def test_a_fraction_counts_by_the_ratio() -> None:
    """Both took twice as long as when the whole network was measured alone, for a second."""
    before, after = (Latency(seconds, seconds, 20, 1, 1) for seconds in (2.0, 1.0))
    pair = LatencyPair(before, after, 2.0, 2.0)
    assert counted(pair, 1.0, 0.6) == 0.5 and counted(pair, 1.0, 6e5) == 1.0
