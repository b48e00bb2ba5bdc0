"""One run of the annealing study of ADP, in two ways: as the author's code does it, and with this project's own loop.

In the author's code the weights of all layers but the first are wrapped into new parameters in every forward, after the
optimizer was made: they are masked, but never trained. The softmax at the end is followed by a cross-entropy that
applies another one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.data import Split
from compress.graph import analyse, trace
from compress.plugin import Context, annealed
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.retrain import start_session
from compress.training import Training
from compress_plugins.annealing import Annealing
from compress_plugins.narrowing import largest

MU = 10.0


@dataclass(frozen=True)
class Case:
    """One row of the study.

    Attributes:
        keep: Fraction of the weights behind the first layer that stays; 1 prunes nothing.
        variant: "during", "before" or "scratch".
        stacked: Whether all layers are ranked together.
        rich: With dropout and batch norm behind both hidden layers.
        narrow: A dense network whose hidden layers have half of the weights.
    """

    keep: float = 0.5
    variant: str = "during"
    stacked: bool = False
    rich: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Sizes:
    """How large the study is; the paper has 60,000 and 10,000 samples, 25 epochs and hidden layers of 1,200."""

    epochs: int
    width: int
    batch: int
    rate: float
    legacy_batch: int
    legacy_rate: float


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        accuracy: On the test samples after the last epoch.
        gap: Sum over epochs of (test loss - training loss), both in evaluation ("Total_Gen_Error").
        best: Smallest test loss of an epoch, which the paper chooses on the test samples.
        seconds: Of training and masking, without the losses above.
        kept: By epoch, weights behind the first layer that are not masked.
    """

    accuracy: float
    gap: float
    best: float
    seconds: float
    kept: tuple[int, ...]


def narrow_width(width: int, classes: int) -> int:
    """The width h whose h^2 + classes h is half of that of ``width``: 847 for 1,200 and 10 classes."""
    half = (width * width + classes * width) / 2
    return round((-classes + math.sqrt(classes**2 + 4 * half)) / 2)


def network(inputs: int, width: int, classes: int, rich: bool) -> nn.Sequential:
    """Linear layers of ``inputs``-width-width-classes with ReLU, and where rich with batch norm and dropout behind."""
    layers: list[nn.Module] = []
    for before in (inputs, width):
        layers += [nn.Linear(before, width), nn.ReLU()]
        layers += [nn.BatchNorm1d(width), nn.Dropout(0.5)] if rich else []
    return nn.Sequential(*layers, nn.Linear(width, classes))


def double_softmax_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a softmax of a softmax; with 10 classes it lies between ln(e + 9) - 1 and ln(e + 9)."""
    return functional.cross_entropy(scores.softmax(1), targets)


class Watch:
    """Keeps time and losses; the time that the losses take is left out."""

    def __init__(self, train: Split, test: Split, loss: object) -> None:
        self.train, self.test, self.loss = train, test, loss
        self.losses: list[tuple[float, float]] = []
        self.accuracy, self.aside, self.start = 0.0, 0.0, time.perf_counter()

    def look(self, model: nn.Module) -> None:
        begin = time.perf_counter()
        with torch.no_grad():
            found = [model(split.inputs) for split in (self.train, self.test)]
        pairs = zip(found, (self.train, self.test), strict=True)
        train, test = (float(self.loss(scores, split.targets)) for scores, split in pairs)  # type: ignore[operator]
        self.losses.append((train, test))
        self.accuracy = float((found[1].argmax(1) == self.test.targets).float().mean())
        self.aside += time.perf_counter() - begin

    def outcome(self, kept: list[int], epochs: int) -> Outcome:
        """Of the last ``epochs`` epochs: from scratch, those that found the masks do not count."""
        seconds = time.perf_counter() - self.start - self.aside
        losses = self.losses[-epochs:]
        return Outcome(
            self.accuracy, sum(b - a for a, b in losses), min(b for _, b in losses), seconds, tuple(kept[-epochs:])
        )


def as_the_code_does(case: Case, sizes: Sizes, train: Split, test: Split, classes: int, seed: int) -> Outcome:
    """Plain torch: layers behind the first stay as they were drawn, softmax twice, SGD without momentum."""
    torch.manual_seed(seed)
    width = narrow_width(sizes.width, classes) if case.narrow else sizes.width
    keep = 1.0 if case.narrow else case.keep
    watch = Watch(train, test, double_softmax_loss)
    masks: list[Tensor] | None = None
    kept: list[int] = []
    for _ in range(2 if case.variant == "scratch" else 1):
        model = network(train.inputs.shape[1], width, classes, case.rich)
        layers = [m.weight for m in model if isinstance(m, nn.Linear)][1:]
        for weight in layers:
            weight.requires_grad_(False)
        if masks is None:
            full = [torch.ones_like(weight, dtype=torch.bool) for weight in layers]
            masks = _masks(layers, full, keep, 1, 1, case.stacked) if case.variant == "before" else full
            moves = case.variant != "before"
        else:
            moves = False
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], sizes.legacy_rate)
        for epoch in range(sizes.epochs):
            _apply(layers, masks)
            _pass(model, optimizer, train, sizes.legacy_batch)
            if moves:  # the first call is at position 0 and masks nothing
                masks = _masks(layers, masks, keep, epoch, sizes.epochs, case.stacked)
                _apply(layers, masks)
            kept.append(sum(int(mask.sum()) for mask in masks))
            watch.look(model.eval())
    return watch.outcome(kept, sizes.epochs)


def _pass(model: nn.Module, optimizer: torch.optim.Optimizer, train: Split, batch: int) -> None:
    """One epoch over fixed slices of the samples, in a new order."""
    model.train()
    starts = torch.randperm(math.ceil(len(train) / batch)) * batch
    for start in starts.tolist():
        part = slice(start, start + batch)
        if len(train.targets[part]) < 2:  # batch norm needs two
            continue
        optimizer.zero_grad()
        double_softmax_loss(model(train.inputs[part]), train.targets[part]).backward()
        optimizer.step()


def _masks(
    layers: list[nn.Parameter], masks: list[Tensor], keep: float, position: int, total: int, stacked: bool
) -> list[Tensor]:
    sizes = [
        weight.detach().abs().masked_fill(~mask, -1.0).flatten() for weight, mask in zip(layers, masks, strict=True)
    ]
    if stacked:
        joined = torch.cat(sizes)
        count = annealed(position, total, len(joined), int(keep * len(joined)), MU)
        found = list(largest(joined, count).split([len(each) for each in sizes]))
    else:
        found = [largest(s, annealed(position, total, len(s), int(keep * len(s)), MU)) for s in sizes]
    return [mask.reshape(weight.shape) for weight, mask in zip(layers, found, strict=True)]


def _apply(layers: list[nn.Parameter], masks: list[Tensor]) -> None:
    with torch.no_grad():
        for weight, mask in zip(layers, masks, strict=True):
            weight.mul_(mask)


class _Eyes(Hook):
    """Looks at the network after every epoch, when it has been masked."""

    def __init__(self, watch: Watch, first: str) -> None:
        self.watch, self.first = watch, first
        self.kept: list[int] = []

    def after_epoch(self, loop: Loop) -> None:
        weights = [p for n, p in loop.network.named_parameters() if p.dim() == 2 and n != self.first]
        self.kept.append(sum(int(torch.count_nonzero(p)) for p in weights))
        self.watch.look(loop.network)


def done_right(case: Case, sizes: Sizes, train: Split, test: Split, classes: int, seed: int) -> Outcome:
    """This project's loop and plugin: every layer trains, masks hold after every step, cross-entropy of the scores.

    The loop keeps a tenth of the training samples out to choose an epoch by; here the last epoch is what counts.
    """
    torch.manual_seed(seed)
    width = narrow_width(sizes.width, classes) if case.narrow else sizes.width
    model = network(train.inputs.shape[1], width, classes, case.rich).eval()
    program = trace(model, (train.inputs[:2],))
    watch = Watch(train, test, functional.cross_entropy)
    eyes = _Eyes(watch, "0.weight")
    hooks: tuple[Hook, ...] = (eyes,)
    settings = Training(
        epochs=sizes.epochs, lr=sizes.rate, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="constant",
        warmup=0, batch_size=sizes.batch, patience=0, distill="none", augment="none",
    )  # fmt: skip
    trained = program.module
    if case.keep < 1 and not case.narrow:
        method = Annealing(case.keep, MU, case.variant, "all" if case.stacked else "layer")  # type: ignore[arg-type]
        context = Context(analyse(program), granularity="weight", seed=seed, has_budget=False)
        session = start_session(method, context)
        hooks, trained = (InSession(session), eyes), session.network
    if case.variant == "scratch":
        settings = replace(settings, epochs=2 * sizes.epochs)
    finetune(trained, train, settings, seed=seed, hooks=hooks)
    return watch.outcome(eyes.kept, sizes.epochs)
