"""Clocks that go by the sizes of what they are shown, so that no test depends on the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.graph import Coupling, analyse, trace
from compress.latency.layers import Layer
from compress.latency.timer import Whole


@dataclass
class Clock:
    """A microsecond for each thousand numbers that a layer reads; a whole network takes what it is told."""

    whole: Whole
    asked: list[tuple[Layer, int]] = field(default_factory=list)
    seen: list[tuple[Tensor, ...]] = field(default_factory=list)

    def layer(self, layer: Layer, weight_bytes: int) -> float:
        self.asked.append((layer, weight_bytes))
        return 1e-9 * sum(math.prod(shape) for shape in layer.shapes)

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        self.seen.append(tuple(inputs))
        return self.whole


@pytest.fixture
def clock() -> Callable[..., Clock]:
    return lambda seconds=1.0, nodes=0, start=0.0, node=0.0: Clock(Whole(seconds, nodes, start, node))


@pytest.fixture
def analysed() -> Callable[..., Coupling]:
    def make(module: nn.Module, *inputs: Any) -> Coupling:
        return analyse(trace(module.eval(), inputs))

    return make


@pytest.fixture
def convnet() -> nn.Module:
    """Three convolutions, two of them alike; the units between them can go."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 2)).eval()
