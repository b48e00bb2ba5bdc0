"""Networks, samples and a whole run for the tests of standout."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compress.data import Split
from compress.graph import Coupling, analyse, trace
from compress.plan import Plan
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.retrain import folded, plan_of, start_session
from compress.training import Training
from compress_plugins.standout import Pruning, Standout

SGD = Training(epochs=6, batch_size=20, lr=0.05, momentum=0.9, weight_decay=0.1, warmup=0, patience=0)


def mlp(*widths: int, between: tuple[nn.Module, ...] = (nn.ReLU(),), bias: bool = True) -> Coupling:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((10, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(before, after, bias=bias), *(copy.deepcopy(b) for b in between if after != 3)]
    return analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, 10),)))


def normed(width: int) -> Coupling:
    return mlp(width, between=(nn.BatchNorm1d(width), nn.LeakyReLU(0.1, inplace=True), nn.Dropout(0.1)), bias=False)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(72, 3)
        self.inner, self.outer = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = functional.max_pool2d(x + self.outer(torch.relu(self.inner(x))), 2)
        out: Tensor = self.head(x.flatten(1))
        return out


class Shared(nn.Module):
    """The same layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        out: Tensor = self.last(self.middle(self.middle(x).relu()).relu())
        return out


def residual(module: type[nn.Module] = Residual, *shape: int) -> Coupling:
    torch.manual_seed(0)
    return analyse(trace(module().eval(), (torch.randn(2, *(shape or (1, 6, 6))),)))


def samples(coupling: Coupling, count: int = 100) -> Split:
    torch.manual_seed(1)
    x = torch.randn(count, *coupling.program.inputs[0].shape[1:])
    return Split(x, x.flatten(1)[:, :3].argmax(1))


class Done:
    """A training with standout and what came of it."""

    def __init__(
        self, method: Standout, coupling: Coupling, settings: Training = SGD, *hooks: Hook, **context: Any
    ) -> None:
        data = samples(coupling)
        given: dict[str, Any] = {"has_budget": False, "data": SimpleNamespace(train=data)} | context
        session = start_session(method, Context(coupling, **given))
        assert isinstance(session, Pruning)
        self.session, self.coupling = session, coupling
        self.trained = finetune(session.network, data, settings, hooks=[InSession(session), *hooks])
        self.after = analyse(folded(session, self.trained.module, coupling.program))
        self.context = Context(self.after, **given)
        self.plan: Plan = plan_of(session, self.context)

    @property
    def left(self) -> list[int]:
        return [entry["kept units"] for entry in self.trained.history]

    def in_float64(self) -> tuple[fx.GraphModule, Coupling]:
        """The trained network with gates, and the folded one, analysed."""
        network = copy.deepcopy(self.trained.module).double().eval()
        inputs = tuple(x.double() for x in self.coupling.program.inputs)
        return network, analyse(folded(self.session, network, replace(self.coupling.program, inputs=inputs)))
