"""One run of the study of standout: a network is pruned while it trains, or has its width from the start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from mgf_networks import mgf_network
from torch.nn import functional

from compress.data import Split
from compress.graph import analyse, trace
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.training import Training
from compress_plugins.standout import Pruning, Standout
from compress_plugins.standout_targets import events

WIDE = 512
SYSTEMS = {  # by name: whether it is pruned, whether its ReLU leaks
    "fixed": (False, False),
    "fixed, leaky": (False, True),
    "pruned": (True, False),
    "pruned, leaky": (True, True),
}


@dataclass(frozen=True)
class Samples:
    """Images (N, 1, 28, 28) and their classes."""

    train: Split
    test: Split


@dataclass(frozen=True)
class Case:
    """A network of the study; ``nodes`` are those of the hidden linear layer in the end."""

    size: str
    nodes: int
    pruned: bool
    leaky: bool
    dropout: float = 0.0


@dataclass(frozen=True)
class Protocol:
    """How long it trains: epochs between two prunings, epochs of Adam; batch size and SGD's learning rate."""

    period: int
    adam: int
    batch: int
    rate: float

    def settings(self, epochs: int) -> Training:
        """Of a run: ten logistic outputs, constant learning rates, every epoch."""
        return Training(
            epochs=epochs, lr=self.rate, optimizer="sgd", momentum=0.9, nesterov=False, weight_decay=0.0,
            schedule="constant", warmup=0.0, batch_size=self.batch, augment="none", validation=0.02, patience=0,
            distill="none", loss="bce",
        )  # fmt: skip

    def sgd(self, nodes: int) -> int:
        """Epochs of SGD of a pruned network: one period after the last pruning it ends."""
        return (events(WIDE, WIDE - nodes, 0.5) + 1) * self.period


@dataclass(frozen=True)
class Curve:
    """What a run came to: by epoch accuracy and loss on the test samples; of each pruning the epoch and units left."""

    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    prunings: list[list[int]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The highest accuracy of an epoch in which all that goes has gone."""
        return max(self.accuracy[self.prunings[-1][0] - 1 if self.prunings else 0 :])


class Watch(Hook):
    """Judges every epoch on the test samples, and changes to Adam after some epochs."""

    def __init__(self, test: Split, adam_after: int | None = None) -> None:
        self.test, self.adam_after, self.curve = test, adam_after, Curve()

    def after_epoch(self, loop: Loop) -> None:
        loop.model.eval()
        with torch.no_grad():
            scores = torch.cat([loop.model(part) for part in self.test.inputs.split(500)])
        wanted = functional.one_hot(self.test.targets, scores.shape[1]).float()
        self.curve.accuracy.append(float((scores.argmax(1) == self.test.targets).float().mean()))
        self.curve.loss.append(float(functional.binary_cross_entropy_with_logits(scores, wanted)))
        if loop.epoch == self.adam_after:
            loop.change_optimizer(optimizer="adamw", lr=1e-3, weight_decay=0.0)


def trained(case: Case, protocol: Protocol, data: Samples, seed: int) -> Curve:
    """Train one network by the protocol; the same number of epochs for all that end at one width."""
    width = WIDE if case.pruned else case.nodes
    epochs = protocol.sgd(min(case.nodes, 128)) + protocol.adam  # the wide one with dropout as long as 128 units
    if case.pruned:
        method = Standout(nodes=case.nodes, period=protocol.period, phases=True)
        return _run(case, width, method, Watch(data.test), protocol.settings(epochs), data, seed)
    return _run(case, width, None, Watch(data.test, 4 * protocol.period), protocol.settings(epochs), data, seed)


def down(gamma: float, period: int, size: str, protocol: Protocol, data: Samples) -> Curve:
    """Prune down to one unit, by SGD alone, and train one period more."""
    epochs = (events(WIDE, WIDE - 1, gamma) + 1) * period
    case = Case(size, 1, pruned=True, leaky=False)
    method = Standout(nodes=1, gamma=gamma, period=period)
    return _run(case, WIDE, method, Watch(data.test), protocol.settings(epochs), data, 0)


def _run(
    case: Case, width: int, method: Standout | None, watch: Watch, settings: Training, data: Samples, seed: int
) -> Curve:
    torch.manual_seed(seed)
    size: Any = case.size
    module = mgf_network(size, width, "leaky" if case.leaky else "relu", case.dropout)
    coupling = analyse(trace(module.eval(), (data.train.inputs[:2],)))
    if method is None:
        finetune(coupling.program.module, data.train, settings, seed=seed, hooks=[watch])
        return watch.curve
    session = method.start(Context(coupling, has_budget=False, seed=seed))
    assert isinstance(session, Pruning)
    finetune(session.network, data.train, settings, seed=seed, hooks=[InSession(session), watch])
    return Curve(watch.curve.accuracy, watch.curve.loss, session.prunings)
