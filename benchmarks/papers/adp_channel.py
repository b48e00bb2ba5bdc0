"""The channel-pruning table of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right.

    python benchmarks/papers/adp_channel.py --data npz:mnist.npz [--epochs 25] [--samples 60000] [--test 10000]
                                            [--seeds 3] [--results docs/results]

Of every few consecutive weights of a neuron, in all layers but the first, the largest stays; nothing is trained
afterwards. Three columns: the numbers of the paper; the author's code (layers behind the first are never trained,
softmax twice); and networks whose layers all train. Masks are those of this project's plugin. Writes adp_channel.md and
its figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import mean

import torch
from adp_network import Hidden, Way, accuracy, as_coded, network, right, train, weights_behind_the_first
from adp_page import Samples, parser, samples, size_line
from pages import Bound, bounds, cell, start, table, within, write
from torch import nn

from compress.figures import Figure, Series
from compress_plugins.channel import Channel

SIZES = (2, 3, 4, 8)  # consecutive weights of which one stays
# By activation and size: accuracy, as printed
PRINTED = {
    "relu": (0.9711, 0.9663, 0.9430, 0.7180),
    "channel-out": (0.9687, 0.9619, 0.9371, 0.6346),
    "channel-out absmax": (0.9457, 0.9305, 0.8916, 0.6341),
}
COUNTS = {2: 726_000, 3: 484_000, 4: 363_000, 8: 181_500}  # of 1,452,000 weights behind the first layer, as printed
POOL = 2  # units of which one passes a channel-out; the paper does not say how many
Found = dict[tuple[str, str, int], list[float]]  # by way, activation and size; size 1 prunes nothing


def main() -> None:
    """Trains every activation with every seed in both ways, prunes with every size, and writes the page."""
    given = parser(__doc__).parse_args()
    start(given)
    data = samples(given.data, given.samples, given.test)
    ways = (as_coded(given.legacy_lr, given.legacy_batch_size), right(given.lr, given.batch_size))
    found: Found = {}
    for way in ways:
        for activation in PRINTED:
            for seed in range(given.seeds):
                for size, reached in accuracies(way, activation, data, given.width, given.epochs, seed):
                    found.setdefault((way.name, activation, size), []).append(reached)
            print(f"{way.name}, {activation}: {_cells(found, way.name, activation)}", flush=True)
    write(given.results, "adp_channel", page(found, given, data), figures(found))


def accuracies(
    way: Way, activation: str, data: Samples, width: int, epochs: int, seed: int
) -> Iterator[tuple[int, float]]:
    """Of one network, whole (size 1) and pruned with every size."""
    torch.manual_seed(seed)
    model = network(data.inputs, width, data.classes, Hidden(activation, POOL))
    train(model, way, data.train, epochs)
    yield 1, accuracy(model, data.test)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for size in SIZES:
        prune(model, size)
        yield size, accuracy(model, data.test)
        model.load_state_dict(whole)


def prune(model: nn.Module, size: int) -> int:
    """Channel pruning of all layers but the first; returns how many of their weights stay."""
    masks = [Channel(size).mask(weight)[0] for weight in weights_behind_the_first(model)]
    with torch.no_grad():
        for weight, mask in zip(weights_behind_the_first(model), masks, strict=True):
            weight.mul_(mask)
    return sum(int(mask.sum()) for mask in masks)


def page(found: Found, given: argparse.Namespace, data: Samples) -> Iterator[str]:
    """What was run, the table, and whether the bounds are met."""
    yield "# Channel pruning: the table of the paper\n"
    yield size_line("adp_channel", given, data)
    yield _TEXT.format(legacy=given.legacy_lr, rate=given.lr, pool=POOL)
    head = ("activation", "way", "not pruned", *(f"1 of {size}" for size in SIZES))
    rows: list[tuple[str, ...]] = []
    for activation, printed in PRINTED.items():
        rows.append((activation, "paper", "", *(f"{each:.4f}" for each in printed)))
        rows += [(activation, way, *_cells(found, way, activation)) for way in ("as coded", "done right")]
    yield from table(head, rows)
    yield "\n![Accuracy by the size of pools](adp-channel.svg)\n"
    yield from bounds(_bounds(found))
    yield _BOUNDS


def _cells(found: Found, way: str, activation: str) -> list[str]:
    return [cell(found[way, activation, size]) for size in (1, *SIZES)]


def _bounds(found: Found) -> Iterator[Bound]:
    means = [mean(found["done right", "relu", size]) for size in SIZES]
    yield within("done right: accuracy of relu is at least 0.96 for every size", means, 0.96)
    for activation in PRINTED:
        falls = [mean(found["as coded", activation, size]) for size in (1, *SIZES)]
        listed = ", ".join(f"{each:.4f}" for each in falls)
        yield Bound(
            f"as coded: accuracy of {activation} falls with the size", listed, falls == sorted(falls, reverse=True)
        )
    for activation, printed in PRINTED.items():
        away = max(
            abs(mean(found["as coded", activation, size]) - each) for size, each in zip(SIZES, printed, strict=True)
        )
        yield Bound(
            f"as coded: accuracies of {activation} are within 0.05 of the printed ones", f"{away:.4f}", away <= 0.05
        )
    counts = [prune(network(784, 1200, 10), size) for size in COUNTS]
    listed = ", ".join(f"{each:,}" for each in counts)
    yield Bound("784-1200-1200-10: as many weights stay as printed", listed, counts == [*COUNTS.values()])


def figures(found: Found) -> Iterator[Figure]:
    """Accuracy by size, of all activations as printed and in both ways."""
    sizes = [float(size) for size in SIZES]
    series = [Series("relu, paper", sizes, PRINTED["relu"])]
    for way in ("as coded", "done right"):
        for activation in ("relu", "channel-out"):
            runs = [found[way, activation, size] for size in SIZES]
            low, high = ([pick(run) for run in runs] for pick in (min, max))
            series.append(Series(f"{activation}, {way}", sizes, [mean(run) for run in runs], low=low, high=high))
    title = "Accuracy after channel pruning, without training"
    yield Figure("adp-channel", title, "weights of which one stays", "accuracy", tuple(series))


_TEXT = """
Of every 2, 3, 4 or 8 consecutive weights of a neuron the one with the largest magnitude stays. The first layer and all
biases are whole, and nothing is trained after the pruning. A channel-out passes the largest of {pool} neighbouring
units, with "absmax" the one with the largest magnitude; the paper does not print how many it takes.

* **As coded**: layers behind the first keep the weights they were drawn with (softmax twice, SGD with learning rate
  {legacy:g}). The first layer learns to make use of them as they are.
* **Done right**: every layer trains (SGD, learning rate {rate:g}, momentum 0.9, cross-entropy of the scores).
"""

_BOUNDS = """
With relu and 1 of 2 the paper prints .9711, which is more than the .9602 that its annealing table has for the whole
network. The training behind this table must have been another one, of which it says nothing. What can be compared is
that accuracy falls slowly where all layers train, and collapses where they do not.
"""


if __name__ == "__main__":
    main()
