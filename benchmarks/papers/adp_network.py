"""The network of ADP and its training, in plain PyTorch: as the author's code trains it, and as it should be.

In the author's code the weights of all layers but the first are wrapped into new parameters in every forward, after the
optimizer was made: they are masked, but never trained. The softmax at the end is followed by a cross-entropy that
applies another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.data import Split
from compress.nn import SERLU, ChannelOut, Maxout, ShiftDropout

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Hidden:
    """What stands behind each of the two hidden linear layers.

    Attributes:
        activation: "relu", "selu", "serlu", "maxout", "channel-out" or "channel-out absmax".
        pool: Units that compete, of the last three.
        dropout: "none", "standard", "alpha" or "shift".
        p: Probability of a unit to be dropped.
        norm: With batch norm before the dropout.
    """

    activation: str = "relu"
    pool: int = 2
    dropout: str = "none"
    p: float = 0.5
    norm: bool = False

    def modules(self) -> tuple[nn.Module, ...]:
        """The activation and the dropout, if there is one."""
        activations: dict[str, Callable[[], nn.Module]] = {
            "relu": nn.ReLU,
            "selu": nn.SELU,
            "serlu": SERLU,
            "maxout": lambda: Maxout(self.pool),
            "channel-out": lambda: ChannelOut(self.pool),
            "channel-out absmax": lambda: ChannelOut(self.pool, absmax=True),
        }
        dropouts = {"standard": nn.Dropout, "alpha": nn.AlphaDropout, "shift": ShiftDropout}
        dropout = () if self.dropout == "none" else (dropouts[self.dropout](self.p),)
        return (activations[self.activation](), *dropout)


@dataclass(frozen=True)
class Way:
    """How a network is trained.

    Attributes:
        name: Of the column.
        frozen: Whether the weights of all layers but the first stay as they were drawn; biases always train.
        twice: Whether the loss applies a softmax to a softmax.
        rate, momentum: Of SGD.
        batch: Samples per step.
        slices: Whether batches are fixed slices of the samples, in a new order every epoch.
    """

    name: str
    frozen: bool
    twice: bool
    rate: float
    momentum: float
    batch: int
    slices: bool

    @property
    def loss(self) -> Loss:
        return double_softmax_loss if self.twice else functional.cross_entropy


def as_coded(rate: float = 4.0, batch: int = 100) -> Way:
    """As the author's code does it."""
    return Way("as coded", frozen=True, twice=True, rate=rate, momentum=0.0, batch=batch, slices=True)


def right(rate: float = 0.1, batch: int = 100) -> Way:
    """All layers train, the cross-entropy is that of the scores, and every epoch has batches of its own."""
    return Way("done right", frozen=False, twice=False, rate=rate, momentum=0.9, batch=batch, slices=False)


def double_softmax_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a softmax of a softmax; with 10 classes it lies between ln(e + 9) - 1 and ln(e + 9)."""
    return functional.cross_entropy(scores.softmax(1), targets)


def network(inputs: int, width: int, classes: int, hidden: Hidden | None = None) -> nn.Sequential:
    """Linear layers of inputs-width-width-classes; a maxout makes the inputs of the next layer fewer.

    Weights are drawn as PyTorch draws them, uniformly within 1 / sqrt(inputs).
    """
    hidden = hidden or Hidden()
    left = width // hidden.pool if hidden.activation == "maxout" else width
    layers: list[nn.Module] = []
    for before in (inputs, left):
        activation, *dropout = hidden.modules()
        norm = [nn.BatchNorm1d(left)] if hidden.norm else []
        layers += [nn.Linear(before, width), activation, *norm, *dropout]
    return nn.Sequential(*layers, nn.Linear(left, classes))


def draw_lecun(model: nn.Sequential) -> None:
    """Weights of variance 1 / inputs and biases of 0, which self-normalising activations are made for."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)


def weights_behind_the_first(model: nn.Module) -> list[nn.Parameter]:
    """The weights that the paper prunes."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Linear)][1:]


class Watch:
    """Keeps time, losses and accuracies; the time that looking takes is left out.

    Attributes:
        losses: By epoch, on training and test samples, both in evaluation.
        accuracy, train_accuracy: Of the last epoch.
    """

    def __init__(self, train: Split, test: Split, loss: Loss) -> None:
        self.train, self.test, self.loss = train, test, loss
        self.losses: list[tuple[float, float]] = []
        self.accuracy, self.train_accuracy = 0.0, 0.0
        self.aside, self.start = 0.0, time.perf_counter()

    def look(self, model: nn.Module) -> None:
        begin = time.perf_counter()
        with torch.no_grad():
            found = [(model(split.inputs), split.targets) for split in (self.train, self.test)]
        train, test = (float(self.loss(scores, targets)) for scores, targets in found)
        self.losses.append((train, test))
        self.train_accuracy, self.accuracy = (float((s.argmax(1) == t).float().mean()) for s, t in found)
        self.aside += time.perf_counter() - begin

    @property
    def seconds(self) -> float:
        """Since the start, without looking."""
        return time.perf_counter() - self.start - self.aside


def train(
    model: nn.Module,
    way: Way,
    samples: Split,
    epochs: int,
    watch: Watch | None = None,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train in place; leaves the network in evaluation mode.

    Args:
        model: A network of linear layers.
        way: How.
        samples: To train on.
        epochs: Passes over them.
        watch: Looks at the network after every epoch.
        after_epoch: Called with the number of the epoch, from 0, before that look.
    """
    for weight in weights_behind_the_first(model):
        weight.requires_grad_(not way.frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, way.rate, momentum=way.momentum)
    for epoch in range(epochs):
        model.train()
        for inputs, targets in _batches(samples, way):
            optimizer.zero_grad()
            way.loss(model(inputs), targets).backward()
            optimizer.step()
        model.eval()
        after_epoch(epoch)
        if watch is not None:
            watch.look(model)


def _batches(samples: Split, way: Way) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch; batch norm needs two samples, so a batch of one is left out."""
    count = len(samples)
    order = torch.arange(count) if way.slices else torch.randperm(count)
    starts = (torch.randperm(-(-count // way.batch)) * way.batch).tolist()
    for start in starts:
        rows = order[start : start + way.batch]
        if len(rows) > 1:
            yield samples.inputs[rows], samples.targets[rows]


def accuracy(model: nn.Module, samples: Split) -> float:
    """Share of the samples that a network in evaluation mode gets right."""
    with torch.no_grad():
        return float((model(samples.inputs).argmax(1) == samples.targets).float().mean())
