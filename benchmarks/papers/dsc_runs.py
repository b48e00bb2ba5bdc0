"""One run of the study of DSC, in two ways: by the recorded settings of the authors, and with this project's plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compress.data import Split
from compress.graph import analyse, slice_verified, trace
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.retrain import folded, plan_of, start_session
from compress.training import Training
from compress_plugins.dsc import DSC
from compress_plugins.dsc_layers import Form, convert, draw, short_circuits
from compress_plugins.dsc_stacks import find_stacks


@dataclass(frozen=True)
class Recorded:
    """How the authors' runs were trained, by their logs: Adam, a constant rate, the last epoch.

    Attributes:
        probabilities: Whether the loss is the mean of -p_y, not of -log p_y.
        rate: Of Adam.
        batch: Samples per step.
        epochs: Passes.
    """

    probabilities: bool
    rate: float
    batch: int
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        accuracy: On the test samples.
        curve: By epoch the accuracy on the samples that were trained on, or are kept out of the training.
        confidence: Mean over classes of the mean largest probability of the samples of a class that are right.
        classes: With at least one sample right: a class that is never right is left out of the mean.
        parameters: Of the network.
    """

    accuracy: float
    curve: tuple[float, ...]
    confidence: float
    classes: int
    parameters: int


class Circuit(nn.Module):
    """The three forms in plain PyTorch, written from equations 3, 5 and 7."""

    def __init__(self, inputs: int, widths: Sequence[int], form: Form) -> None:
        super().__init__()
        self.form = form
        sizes = [inputs, *widths]
        reads = [sizes[n] if form == "ffn" else sum(sizes[: n + 1]) for n in range(len(widths))]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(reads, widths, strict=True))
        self.gates = nn.ParameterList(nn.Parameter(torch.ones(n)) for n in reads if form == "dsc")

    def forward(self, x: Tensor) -> Tensor:
        given = [x]
        for n, layer in enumerate(self.layers):
            read = given[-1] if self.form == "ffn" else torch.cat(given, 1)
            out: Tensor = layer(read * torch.sigmoid(self.gates[n]) if self.form == "dsc" else read)
            given.append(out if n == len(self.layers) - 1 else torch.relu(out))
        return given[-1]


def judged(module: nn.Module, test: Split) -> tuple[float, float, int]:
    """Accuracy, confidence score, and the number of classes that it is a mean of."""
    module.eval()
    with torch.no_grad():
        p = torch.cat([module(part) for part in test.inputs.split(1000)]).softmax(1)
    top, found = p.max(1)
    right = found == test.targets
    by_class = [float(top[right & (test.targets == c)].mean()) for c in test.targets[right].unique()]
    return float(right.float().mean()), mean(by_class) if by_class else 0.0, len(by_class)


def as_recorded(form: Form, widths: Sequence[int], way: Recorded, samples: Split, test: Split, seed: int) -> Outcome:
    """Plain torch with the authors' settings."""
    torch.manual_seed(seed)
    module = Circuit(samples.inputs.shape[1], widths, form)
    optimizer = torch.optim.Adam(module.parameters(), lr=way.rate)
    curve = []
    for _ in range(way.epochs):
        right = 0
        for part in torch.randperm(len(samples)).split(way.batch):
            scores = module(samples.inputs[part])
            log = functional.log_softmax(scores, 1)
            loss = functional.nll_loss(log.exp() if way.probabilities else log, samples.targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((scores.argmax(1) == samples.targets[part]).sum())
        curve.append(right / len(samples))
    return Outcome(*_outcome(module, test, curve))


def _outcome(
    module: nn.Module, test: Split, curve: Sequence[float]
) -> tuple[float, tuple[float, ...], float, int, int]:
    accuracy, confidence, classes = judged(module, test)
    return accuracy, tuple(curve), confidence, classes, sum(p.numel() for p in module.parameters())


class _Gentle(Hook):
    """The penalty on gates, with nothing chosen."""

    def penalty(self, loop: Loop) -> Tensor | None:
        gates = [m.open().norm() for m in short_circuits(loop.network).values() if m.gates is not None]
        return 0.001 * torch.stack(gates).sum() if gates else None


def settings(epochs: int, rate: float, batch: int) -> Training:
    """AdamW with a cosine schedule; the epoch is chosen on a tenth of the training samples."""
    return Training(
        epochs=epochs, lr=rate, optimizer="adamw", weight_decay=1e-4, batch_size=batch, patience=0, distill="none",
        augment="none",
    )  # fmt: skip


def _context(widths: Sequence[int], samples: Split, seed: int) -> Context:
    torch.manual_seed(seed)
    sizes = [samples.inputs.shape[1], *widths]
    layers = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())][:-1]
    program = trace(nn.Sequential(*layers).eval(), (samples.inputs[:2],))
    return Context(analyse(program), seed=seed, has_budget=False, data=_Data(samples))


@dataclass(frozen=True)
class _Data:
    train: Split


def fresh(form: Form, widths: Sequence[int], samples: Split, seed: int) -> fx.GraphModule:
    """A network of a form as it starts from scratch, by the plugin's conversion."""
    context = _context(widths, samples, seed)
    network = context.copy()
    convert(network, find_stacks(context, False), form, "effective", 0.5)
    for module in short_circuits(network).values():
        draw(network, module, context.generator())
    return network


def done_right(form: Form, widths: Sequence[int], way: Training, samples: Split, test: Split, seed: int) -> Outcome:
    """This project's loop on the cross-entropy; all inputs stay."""
    trained = finetune(fresh(form, widths, samples, seed), samples, way, seed=seed, hooks=[_Gentle()])
    return Outcome(*_outcome(trained.module, test, [e["validation accuracy"] for e in trained.history[1:]]))


def pruned(widths: Sequence[int], keep: float, way: Training, samples: Split, test: Split, seed: int) -> Outcome:
    """The whole method from scratch: gates learn, inputs are chosen, the rest of the epochs trains what is left."""
    context = _context(widths, samples, seed)
    session = start_session(DSC(keep=keep, init="fresh", scope="all"), context)
    trained = finetune(session.network, samples, way, seed=seed, hooks=[InSession(session)])
    after = replace(context, coupling=analyse(folded(session, trained.module, context.coupling.program)))
    module = slice_verified(after.coupling, plan_of(session, after).removed).module
    return Outcome(*_outcome(module, test, [e["validation accuracy"] for e in trained.history[1:]]))
