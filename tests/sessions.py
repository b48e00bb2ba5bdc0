"""The least that a session of a retrain method can be, and a training for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compress.data import Split
from compress.graph import Coupling, analyse, trace
from compress.plugin import Context, Plan, Session, option
from compress.recover import InSession, Trained, finetune
from compress.training import Training

SETTINGS = Training(epochs=3, batch_size=16, lr=0.05, weight_decay=0.0, warmup=0)


def mlp() -> Coupling:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    return analyse(trace(module.eval(), (torch.randn(2, 6),)))


def samples() -> Split:
    torch.manual_seed(1)
    x = torch.randn(64, 6)
    return Split(x, x[:, :3].argmax(1))


def train(session: Session) -> Trained:
    return finetune(session.network, samples(), SETTINGS, hooks=[InSession(session)])


@dataclass(frozen=True)
class Plain:
    """Makes the session it was given."""

    make: Callable[[Context], Any] = option(None, "of a session")

    def start(self, context: Context) -> Session:
        session: Session = self.make(context)
        return session


class Nothing(Session):
    """Trains and plans nothing."""

    def plan(self, context: Context) -> Plan:
        return Plan()
