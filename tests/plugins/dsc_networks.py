"""Networks, samples and a whole run for the tests of dsc."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from compress.data import Split
from compress.graph import Coupling, analyse, slice_verified, trace
from compress.plugin import Context, Plan
from compress.recover import Hook, InSession, finetune
from compress.retrain import folded, plan_of, start_session
from compress.training import Training
from compress_plugins.dsc import DSC
from compress_plugins.dsc_layers import short_circuits
from compress_plugins.dsc_session import Circuits

SGD = Training(epochs=4, batch_size=20, lr=0.05, momentum=0.9, weight_decay=0.1, warmup=0, patience=0)
ADAM = replace(SGD, optimizer="adamw", lr=0.05)  # gates move as far as other weights


def mlp(*widths: int) -> Coupling:
    torch.manual_seed(0)
    layers = [each for a, b in pairwise(widths) for each in (nn.Linear(a, b), nn.ReLU())][:-1]
    return analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, widths[0]),)))


class Convolutions(nn.Module):
    """A stack of four with two resolutions, and one of two linear layers behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 6, 3, 2, 1)
        self.c, self.d = nn.Conv2d(6, 4, 3, padding="same"), nn.Conv2d(4, 6, 2)
        self.e, self.last = nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        x = torch.relu(self.d(nn.functional.max_pool2d(torch.relu(self.c(x)), 2, 1)))
        out: Tensor = self.last(torch.relu(self.e(x.flatten(1))))
        return out


def convolutions() -> Coupling:
    torch.manual_seed(0)
    return analyse(trace(Convolutions().eval(), (torch.randn(2, 2, 8, 8),)))


def samples(coupling: Coupling) -> Split:
    torch.manual_seed(1)
    x = torch.randn(200, *coupling.program.inputs[0].shape[1:])
    return Split(x, x.flatten(1)[:, :3].argmax(1))


class Data:
    def __init__(self, train: Split) -> None:
        self.train = train


def session_of(method: DSC, coupling: Coupling, **context: Any) -> Circuits:
    given: dict[str, Any] = {"has_budget": False, "data": Data(samples(coupling))} | context
    session = start_session(method, Context(coupling, **given))
    assert isinstance(session, Circuits)
    return session


class Done:
    """A training and what came of it."""

    def __init__(
        self, method: DSC, coupling: Coupling, settings: Training = SGD, hook: Hook | None = None, **context: Any
    ) -> None:
        self.session = session_of(method, coupling, **context)
        hooks = [InSession(self.session), *([hook] if hook else [])]
        self.trained = finetune(self.session.network, samples(coupling), settings, hooks=hooks)
        self.after = analyse(folded(self.session, self.trained.module, coupling.program))
        self.plan: Plan = plan_of(self.session, replace(self.session.context, coupling=self.after))
        self.sliced = slice_verified(self.after, self.plan.removed)
        assert not self.sliced.rolled_back

    @property
    def inputs(self) -> dict[str, int]:
        return {name: int(m.kept.sum()) for name, m in short_circuits(self.trained.module).items()}
