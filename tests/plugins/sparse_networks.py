"""Small networks for the trainings that make components zero, and one such training from the network to the slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.budget import Budget
from compress.data import Split
from compress.graph import Coupling, analyse, remove_dead, slice_verified, trace
from compress.plan import Plan
from compress.plugin import Context
from compress.recover import Hook, InSession, Trained, finetune
from compress.retrain import Retrain, folded, plan_of, start_session
from compress.training import Training
from compress_plugins.sparse import Sparse

SETTINGS = Training(epochs=6, batch_size=20, lr=0.05, weight_decay=1e-3, warmup=0, patience=0)


class Residual(nn.Module):
    """Padded convolutions with batch norms, and two residual branches."""

    def __init__(self, width: int = 8, inner: int = 6) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU(),
                nn.Conv2d(inner, width, 3, padding=1), nn.BatchNorm2d(width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        for branch in self.branches:
            x = torch.relu(x + branch(x))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Dense(nn.Module):
    """Norms in front of the convolutions that read a growing concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(14, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (6, 10, 14))
        self.layers = nn.ModuleList(nn.Conv2d(n, 4, 3, padding=1) for n in (6, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms[:2], self.layers, strict=True):
            x = torch.cat((x, layer(torch.relu(norm(x)))), 1)
        out: Tensor = self.head(torch.relu(self.norms[2](x)).mean((2, 3)))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 12), nn.Sigmoid(), nn.Linear(12, 3))


def drawn(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """With scales, shifts and statistics as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in ((norm.weight, 0.2, 1.2), (norm.bias, -0.3, 0.6), (norm.running_mean, -0.2, 0.2)):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return module.eval().to(dtype)


def coupling(make: Any, dtype: torch.dtype = torch.float32) -> Coupling:
    torch.manual_seed(0)
    module = drawn(make(), dtype)
    shape = (2, 10) if isinstance(module, nn.Sequential) else (2, 1, 5, 5)
    return analyse(trace(module, (torch.randn(shape, dtype=dtype),)))


def samples(coupling: Coupling) -> Split:
    torch.manual_seed(1)
    example = coupling.program.inputs[0]
    x = torch.randn(100, *example.shape[1:], dtype=example.dtype)
    return Split(x, x.flatten(1)[:, :3].argmax(1))


@dataclass(frozen=True)
class Done:
    """A training and what came of it: ``sliced`` is the network without what the plan takes."""

    session: Sparse
    trained: Trained
    after: Coupling
    plan: Plan
    sliced: fx.GraphModule

    def difference(self) -> float:
        """Of the slice from what was trained, on other samples, relative to the largest output."""
        torch.manual_seed(2)
        example = self.after.program.inputs[0]
        x = torch.randn(7, *example.shape[1:], dtype=example.dtype)
        with torch.no_grad():
            expected, got = self.trained.module(x), self.sliced(x)
        return float((expected - got).abs().max() / expected.abs().max())


def train(
    method: Retrain, given: Coupling, settings: Training = SETTINGS, hook: Hook | None = None, **context: Any
) -> Done:
    """With ``budget`` unless that is None."""
    budget = context.pop("budget", Budget("ratio", 0.5))
    seen = Context(given, budget or Budget(), has_budget=budget is not None, **context)
    session = start_session(method, seen)
    assert isinstance(session, Sparse)
    hooks = [InSession(session), *([hook] if hook else [])]
    trained = finetune(session.network, samples(given), settings, hooks=hooks)
    after = analyse(folded(session, trained.module, given.program))
    plan = plan_of(session, Context(after, seen.budget, has_budget=seen.has_budget, allocation=seen.allocation))
    if plan.masks:
        sliced = remove_dead(after, plan.masks).module
    else:
        found = slice_verified(after, plan.removed)
        assert not found.rolled_back
        sliced = found.module
    return Done(session, trained, after, plan, sliced)
