"""The Tetris table of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right, and Figure 15.

    python benchmarks/papers/adp_tetris.py --data npz:mnist.npz [--epochs 25] [--samples 60000] [--test 10000]
                                           [--seeds 3] [--results docs/results]

Tetris thins the bins of a layer's histogram; the paper prunes the output layer. Three ways: the numbers of the paper;
the author's code (layers behind the first are never trained, softmax twice, bins mirrored); and a network whose layers
all train, with two rules of this project's plugin. Writes adp_tetris.md and its figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import mean

import torch
from adp_network import Way, accuracy, as_coded, network, right, train, weights_behind_the_first
from adp_page import Samples, parser, samples, size_line
from pages import Bound, bounds, cell, start, table, within, write
from torch import Tensor, nn

from compress.figures import Figure
from compress_plugins.tetris import Tetris

# By number of bins: weights of 12,000 that stay, accuracy, as printed
PRINTED = {10: (410, 0.1907), 100: (2300, 0.2892), 250: (4250, 0.9441), 500: (7000, 0.9521), 1000: (10_000, 0.9592)}
COLUMNS = ("coded", "frozen", "min", "auto", "both layers")
FIGURE_BINS = 100  # of Figure 15


@dataclass(frozen=True)
class Pruned:
    """What one mask comes to: the share of the layers' weights that stays, and the accuracy with them."""

    kept: float
    accuracy: float


Found = dict[tuple[str, int], list[Pruned]]


def main() -> None:
    """Trains both networks with every seed, prunes them with every number of bins, and writes the page."""
    given = parser(__doc__).parse_args()
    start(given)
    data = samples(given.data, given.samples, given.test)
    found: Found = {(column, bins): [] for column in COLUMNS for bins in PRINTED}
    dense: dict[str, list[float]] = {}
    figures: list[Figure] = []
    for seed in range(given.seeds):
        for way in (as_coded(given.legacy_lr, given.legacy_batch_size), right(given.lr, given.batch_size)):
            model = trained(way, data, given.width, given.epochs, seed)
            dense.setdefault(way.name, []).append(accuracy(model, data.test))
            print(f"{way.name}, seed {seed}: accuracy {dense[way.name][-1]:.4f}", flush=True)
            for column, bins, pruned in prunings(model, way, data):
                found[column, bins].append(pruned)
            if seed == 0:
                figures.append(histogram(way, weights_behind_the_first(model)[-1]))
    write(given.results, "adp_tetris", page(found, dense, given, data), figures)


def trained(way: Way, data: Samples, width: int, epochs: int, seed: int) -> nn.Sequential:
    """A network of one seed."""
    torch.manual_seed(seed)
    model = network(data.inputs, width, data.classes)
    train(model, way, data.train, epochs)
    return model


def prunings(model: nn.Sequential, way: Way, data: Samples) -> Iterator[tuple[str, int, Pruned]]:
    """Every column of a network, with every number of bins."""
    layers = weights_behind_the_first(model)
    output = layers[-1]
    for bins in PRINTED:
        literal = Tetris(bins, "min").mask(output)[0]
        if way.frozen:
            yield "coded", bins, pruned(model, data, [output], [mirrored(output.detach(), bins)])
            yield "frozen", bins, pruned(model, data, [output], [literal])
        else:
            yield "min", bins, pruned(model, data, [output], [literal])
            yield "auto", bins, pruned(model, data, [output], [Tetris(bins).mask(output)[0]])
            masks = [Tetris(bins).mask(layer)[0] for layer in layers]
            yield "both layers", bins, pruned(model, data, layers, masks)


def pruned(model: nn.Module, data: Samples, layers: list[nn.Parameter], masks: list[Tensor]) -> Pruned:
    """The network with masks on some layers; it comes back as it was."""
    whole = [layer.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer, mask in zip(layers, masks, strict=True):
            layer.mul_(mask)
        reached = accuracy(model, data.test)
        for layer, old in zip(layers, whole, strict=True):
            layer.copy_(old)
    kept = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    return Pruned(kept, reached)


def mirrored(weight: Tensor, bins: int) -> Tensor:
    """The mask of the author's code: the counts of bins, from the lowest, cut the weights from the largest.

    As many weights stay as with the bins themselves, but others. Where a bin is empty that code fails, and here it
    takes nothing.
    """
    flat = weight.double().flatten()
    counts = torch.histc(flat, bins, float(flat.min()), float(flat.max())).long()
    lost = int(counts.min()) - 1
    mask = torch.ones(len(flat), dtype=torch.bool)
    if lost > 0:
        for part in flat.argsort(descending=True).split(counts.tolist()):
            mask[part[flat[part].abs().argsort()[:lost]]] = False
    return mask.reshape(weight.shape)


def histogram(way: Way, weight: Tensor) -> Figure:
    """Figure 15: the output layer before and after."""
    method = Tetris(FIGURE_BINS, "min" if way.frozen else "auto")
    mask, note = method.mask(weight)
    figure = method.histogram("output", weight, mask, note)
    if figure is None:
        raise SystemExit(f"{way.name}: all weights of the output layer are zero; train with a lower rate")
    title = f"Output layer, {way.name}: {note['kept_weights']:,} of {note['weights']:,} weights stay"
    return replace(figure, name=f"adp-tetris-{way.name.replace(' ', '-')}", title=title)


def page(found: Found, dense: Mapping[str, list[float]], given: argparse.Namespace, data: Samples) -> Iterator[str]:
    """What was run, the table, the histograms, and whether the bounds are met."""
    yield "# Tetris pruning: the table of the paper\n"
    yield size_line("adp_tetris", given, data)
    yield _TEXT.format(
        legacy=given.legacy_lr, rate=given.lr, coded=cell(dense["as coded"]), right=cell(dense["done right"])
    )
    yield "## Weights of the output layer that stay, in percent\n"
    head = ("bins", "paper", "as coded", "done right, rule min", "done right, rule auto", "both layers, rule auto")
    columns = ("frozen", "min", "auto", "both layers")
    rows = []
    for bins, (kept, _) in PRINTED.items():
        rows.append((f"{bins:,}", f"{kept / 120:.2f}", *(cell(_kept(found, each, bins), 2) for each in columns)))
    yield from table(head, rows)
    yield "\n## Accuracy\n"
    rows = []
    for bins, (_, printed) in PRINTED.items():
        cells = (cell(each.accuracy for each in found[column, bins]) for column in COLUMNS)
        rows.append((f"{bins:,}", f"{printed:.4f}", *cells))
    yield from table((*head[:2], "as coded", "as coded, bins not mirrored", *head[3:]), rows)
    yield _PICTURES.format(bins=FIGURE_BINS)
    yield from bounds(_bounds(found))
    yield _BOUNDS


def _kept(found: Found, column: str, bins: int) -> list[float]:
    return [100 * each.kept for each in found[column, bins]]


def _bounds(found: Found) -> Iterator[Bound]:
    for column, name in (("coded", "as coded"), ("frozen", "as coded, bins not mirrored")):
        accuracies = [mean(each.accuracy for each in found[column, bins]) for bins in PRINTED]
        listed = ", ".join(f"{each:.4f}" for each in accuracies)
        yield Bound(f"{name}: accuracy rises with the number of bins", listed, accuracies == sorted(accuracies))
        yield within(f"{name}: accuracy with 10 bins is at most 0.3", accuracies[:1], 0, 0.3)
        yield within(f"{name}: accuracy with 1,000 bins is at least 0.92", accuracies[-1:], 0.92)
    kept = [abs(mean(_kept(found, "frozen", bins)) - kept / 120) for bins, (kept, _) in PRINTED.items()]
    yield Bound("as coded: weights that stay are within 10 points of the paper", f"{max(kept):.2f}", max(kept) <= 10)


_TEXT = """
Tetris sorts the weights of a layer into bins of equal width and takes from every bin as many of its smallest as the
smallest bin can spare. The table of the paper is that of the output layer, without any training afterwards.

* **As coded**: layers behind the first keep the weights they were drawn with, uniform and so with bins that are about
  equally full; softmax twice, SGD with learning rate {legacy:g}. Accuracy before pruning: {coded}. The author's code
  also cuts the sorted weights at the wrong end, so that its bins are mirrored: as many weights stay, but others. Both
  are shown.
* **Done right**: every layer trains (SGD, learning rate {rate:g}, momentum 0.9, cross-entropy of the scores). Accuracy
  before pruning: {right}. Rule `min` is the paper's; at the ends of their range trained weights have bins with few
  weights or none, so that it takes next to nothing. Rule `auto`, the default of `compress prune --method tetris`, takes
  the median of the bins that are not empty where the smallest bin has one weight or none. The last column prunes the
  layer before the output as well, the percentage is of both.
"""

_PICTURES = """
## Figure 15: the output layer before and after, {bins} bins

![As coded](adp-tetris-as-coded.svg)

![Done right](adp-tetris-done-right.svg)
"""

_BOUNDS = """
Accuracies between the first and the last row depend on the learning rate and on the number of steps, which the paper
does not print. Weights drawn uniformly have a smallest bin that differs from seed to seed: the percentages then deviate
by 1 (10 bins) to 7 points (1,000 bins).
"""


if __name__ == "__main__":
    main()
