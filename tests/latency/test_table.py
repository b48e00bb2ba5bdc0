from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import InputError, ModelError
from compress.graph import Coupling
from compress.latency import tables
from compress.latency.table import at_batch

Analysed = Callable[..., Coupling]


@pytest.fixture
def coupling(analysed: Analysed, convnet: nn.Module) -> Coupling:
    return analysed(convnet, torch.zeros(2, 3, 6, 6))


# What the three convolutions and the linear layer read, in thousandths of a microsecond
FIRST, SECOND, THIRD, LAST = 108 + 216, 288 + 576, 288 + 576, 288 + 576


def test_with_everything_alive_it_is_the_measurement(coupling: Coupling, clock: Any) -> None:
    for seconds in (1e-3, 1e-7):  # more and less than the layers
        timer = clock(seconds, nodes=9, start=1e-6, node=1e-6)
        model = tables(coupling, timer=timer)
        assert model.dense == seconds
        assert model.predict(coupling.alive({})) == pytest.approx(seconds)
    assert [tuple(x.shape) for x in timer.seen[0]] == [(1, 3, 6, 6)]


def test_a_layer_is_measured_once(coupling: Coupling, clock: Any) -> None:
    timer = clock()
    model = tables(coupling, timer=timer)
    assert timer.asked == []  # not before somebody asks
    whole = coupling.alive({})
    model.predict(whole)
    assert len(timer.asked) == 3  # of four, as two are alike
    model.predict(whole)
    model.predict(coupling.alive({"4": np.arange(1)}))
    assert [layer.op for layer, _ in timer.asked[3:]] == ["conv", "linear"]
    assert {around for _, around in timer.asked} == {8192}  # 8,032 bytes of weights


def test_by_hand(coupling: Coupling, clock: Any) -> None:
    layers = 1e-9 * (FIRST + SECOND + THIRD + LAST)
    timer = clock(layers + 9e-6, nodes=6, start=1e-6, node=1e-6)
    model = tables(coupling, timer=timer)
    found = model.predict(coupling.alive({"0": np.arange(4)}))
    cut = 1e-9 * (108 + 108 + 144 + 288 + THIRD + LAST)
    # 3 of the rest stay: the start and two nodes that are no layers; the others work on 720 of 864 elements
    assert found == pytest.approx(cut + 3e-6 + 6e-6 * 720 / 864)


def test_layers_that_are_slower_alone(coupling: Coupling, clock: Any) -> None:
    layers = 1e-9 * (FIRST + SECOND + THIRD + LAST)
    model = tables(coupling, timer=clock(layers / 2))
    cut = 1e-9 * (108 + 108 + 144 + 288 + THIRD + LAST)
    assert model.predict(coupling.alive({"0": np.arange(4)})) == pytest.approx(cut / 2)


def test_fewer_units_take_less(coupling: Coupling, clock: Any) -> None:
    model = tables(coupling, timer=clock(1e-4, nodes=6, start=1e-6, node=1e-6))
    found = [model.predict(coupling.alive({"0": np.arange(n), "2": np.arange(n)})) for n in range(8)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] > 0


def test_batches(coupling: Coupling, clock: Any) -> None:
    timer = clock()
    model = tables(coupling, batch=7, timer=timer)
    assert timer.seen[0][0].shape == (7, 3, 6, 6)
    model.predict(coupling.alive({}))
    assert timer.asked[0][0].shapes[0] == (7, 3, 6, 6)
    rows = torch.arange(3.0).reshape(3, 1)
    scalar = torch.tensor(2.0)
    assert at_batch((rows, scalar), 5)[0].ravel().tolist() == [0, 1, 2, 0, 1] and at_batch((scalar,), 5) == (scalar,)


def test_one_batch_size_only(analysed: Analysed, clock: Any) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ torch.ones(4, 4)).reshape(2, 2, 2)

    assert tables(analysed(Fixed(), torch.zeros(2, 4)), timer=clock()).inputs[0].shape == (2, 4)


def test_budgets_in_seconds(coupling: Coupling, clock: Any) -> None:
    model = tables(coupling, timer=clock(0.004))
    assert model.seconds(0.5) == pytest.approx(0.002)
    assert model.seconds(8000.0) == pytest.approx(0.008)


def test_what_cannot_be_timed(coupling: Coupling, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for target, message in (("none", "has no latency"), ("tpu", "unknown"), ("cuda", "no CUDA device")):
        with pytest.raises(InputError, match=message):
            tables(coupling, target)
    with pytest.raises(InputError, match="at least one thread"):
        tables(coupling, threads=0)
    dropped = replace(coupling, program=replace(coupling.program, replayable=False))
    with pytest.raises(ModelError, match="depends on its data"):
        tables(dropped, timer=clock())
