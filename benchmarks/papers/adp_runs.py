"""One run of the annealing study of ADP, in two ways: as the author's code does it, and with this project's loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from adp_network import Hidden, Watch, as_coded, network, train, weights_behind_the_first
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
from compress_plugins.ranking import Ranking

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


def outcome(watch: Watch, kept: list[int], epochs: int) -> Outcome:
    """Of the last ``epochs`` epochs: from scratch, those that found the masks do not count."""
    losses = watch.losses[-epochs:]
    gap, best = sum(b - a for a, b in losses), min(b for _, b in losses)
    return Outcome(watch.accuracy, gap, best, watch.seconds, tuple(kept[-epochs:]))


def _hidden(case: Case) -> Hidden:
    return Hidden(dropout="standard", p=0.5, norm=True) if case.rich else Hidden()


def as_the_code_does(case: Case, sizes: Sizes, samples: Split, test: Split, classes: int, seed: int) -> Outcome:
    """Plain torch: layers behind the first stay as they were drawn, softmax twice, SGD without momentum."""
    torch.manual_seed(seed)
    width = narrow_width(sizes.width, classes) if case.narrow else sizes.width
    way = as_coded(sizes.legacy_rate, sizes.legacy_batch)
    watch = Watch(samples, test, way.loss)
    masked = _Masked(case, sizes.epochs)
    for _ in range(2 if case.variant == "scratch" else 1):
        model = network(samples.inputs.shape[1], width, classes, _hidden(case))
        masked.begin(weights_behind_the_first(model))
        train(model, way, samples, sizes.epochs, watch, masked.after_epoch)
    return outcome(watch, masked.kept, sizes.epochs)


class _Masked:
    """Masks of weights that do not train. A second network takes over the masks of the first, which then stay."""

    def __init__(self, case: Case, epochs: int) -> None:
        self.case, self.epochs = case, epochs
        self.keep = 1.0 if case.narrow else case.keep
        self.layers: list[nn.Parameter] = []
        self.masks: list[Tensor] = []
        self.moves = case.variant != "before"
        self.kept: list[int] = []

    def begin(self, layers: list[nn.Parameter]) -> None:
        self.layers = layers
        if self.masks:
            self.moves = False
        else:
            self.masks = [torch.ones_like(weight, dtype=torch.bool) for weight in layers]
            if self.case.variant == "before":
                self.narrow(1, 1)
        self.apply()

    def after_epoch(self, epoch: int) -> None:
        if self.moves:  # the first call is at position 0 and masks nothing
            self.narrow(epoch, self.epochs)
            self.apply()
        self.kept.append(sum(int(mask.sum()) for mask in self.masks))

    def narrow(self, position: int, total: int) -> None:
        sizes = [w.detach().abs().masked_fill(~m, -1.0) for w, m in zip(self.layers, self.masks, strict=True)]
        flat = [torch.cat([size.flatten() for size in sizes])] if self.case.stacked else [s.flatten() for s in sizes]
        found = torch.cat(
            [Ranking().largest(s, annealed(position, total, len(s), int(self.keep * len(s)), MU)) for s in flat]
        )
        parts = found.split([size.numel() for size in sizes])
        self.masks = [part.reshape(size.shape) for part, size in zip(parts, sizes, strict=True)]

    def apply(self) -> None:
        with torch.no_grad():
            for weight, mask in zip(self.layers, self.masks, strict=True):
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


def done_right(case: Case, sizes: Sizes, samples: Split, test: Split, classes: int, seed: int) -> Outcome:
    """This project's loop and plugin: every layer trains, masks hold after every step, cross-entropy of the scores.

    The loop keeps a tenth of the training samples out to choose an epoch by; here the last epoch is what counts.
    """
    torch.manual_seed(seed)
    width = narrow_width(sizes.width, classes) if case.narrow else sizes.width
    model = network(samples.inputs.shape[1], width, classes, _hidden(case)).eval()
    program = trace(model, (samples.inputs[:2],))
    watch = Watch(samples, test, functional.cross_entropy)
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
    finetune(trained, samples, settings, seed=seed, hooks=hooks)
    return outcome(watch, eyes.kept, sizes.epochs)
