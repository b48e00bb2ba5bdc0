"""The annealed-pruning tables of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right.

    python benchmarks/papers/adp_annealing.py --data npz:mnist.npz [--epochs 25] [--samples 60000] [--test 10000]
                                              [--seeds 3] [--results docs/results]

Three columns: the numbers of the paper; what the author's code does (layers behind the first are never trained, softmax
twice, SGD with learning rate 4); and this project's loop and plugin (all layers train, cross-entropy of the scores, SGD
with learning rate 0.1 and momentum 0.9, masks applied after every step). Writes adp_annealing.md and its figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from statistics import mean

from adp_page import Samples, parser, samples, size_line
from adp_runs import MU, Case, Outcome, Sizes, as_the_code_does, done_right
from pages import bounds, cell, start, table, within, write

from compress.figures import Figure, Series
from compress.schedules import annealed

# By fraction kept: accuracy, sum of generalisation errors, best test error, as printed
BY_KEEP = {
    0.2: (0.9461, -0.0261, 1.5402),
    0.4: (0.9559, 0.0590, 1.5195),
    0.6: (0.9583, 0.0827, 1.5145),
    0.8: (0.9598, 0.0995, 1.5117),
    1.0: (0.9602, 0.0973, 1.5119),
}
# By variant at half of the weights: accuracy, seconds, sum of generalisation errors, as printed
VARIANTS = {
    "no pruning": (Case(keep=1.0), 0.9595, 77.2, 0.0967),
    "by layer, during training": (Case(), 0.9583, 129.3, 0.0787),
    "the same with dropout and batch norm": (Case(rich=True), 0.9708, 151.7, 0.2209),
    "all layers at once": (Case(stacked=True), 0.9585, 305.1, 0.0716),
    "retrained from scratch": (Case(variant="scratch"), 0.9430, 206.9, -0.0185),
    "before training": (Case(variant="before"), 0.9574, 145.2, 0.0666),
    "no pruning, smaller network": (Case(keep=1.0, narrow=True), 0.9582, 48.1, 0.1046),
}
WAYS: Mapping[str, Callable[..., Outcome]] = {"as the code does it": as_the_code_does, "done right": done_right}
# Weights behind the first layer of 784-1200-1200-10, and how many of them Figure 14 shows: by fraction, from epoch 1
WEIGHTS = 1_452_000
FIGURE_14 = {
    0.2: (884_106, 665_686, 550_051, 478_468, 429_792),
    0.4: (1_026_080,),
    0.6: (1_168_053,),
    0.8: (1_310_026,),
}
Outcomes = dict[tuple[str, Case], list[Outcome]]


def main() -> None:
    """Runs every case with every seed in both ways, and writes the page."""
    given = parser(__doc__).parse_args()
    start(given)
    data = samples(given.data, given.samples, given.test)
    sizes = Sizes(given.epochs, given.width, given.batch_size, given.lr, given.legacy_batch_size, given.legacy_lr)
    cases = list(dict.fromkeys([Case(keep=keep) for keep in BY_KEEP] + [case for case, *_ in VARIANTS.values()]))
    found: Outcomes = {}
    for way, run in WAYS.items():
        for case in cases:
            runs = [run(case, sizes, data.train, data.test, data.classes, seed) for seed in range(given.seeds)]
            found[way, case] = runs
            print(f"{way}, {case}: accuracy {cell(each.accuracy for each in runs)}", flush=True)
    write(given.results, "adp_annealing", page(found, given, data), figures(found))


def page(found: Outcomes, given: argparse.Namespace, data: Samples) -> Iterator[str]:
    """What was run, and both tables."""
    yield "# Annealed pruning: the tables of the paper\n"
    yield size_line("adp_annealing", given, data, 25)
    yield _TEXT.format(legacy=given.legacy_lr, rate=given.lr)
    yield "## By the fraction of weights that stays\n"
    rows = []
    for keep, printed in BY_KEEP.items():
        pairs = zip(printed, ("accuracy", "gap", "best"), strict=True)
        cells = [each for value, name in pairs for each in (f"{value:.4f}", *_ways(found, Case(keep=keep), name))]
        rows.append((f"{keep:g}", *cells))
    yield from table(_head("kept", ("accuracy", "gap", "best test loss")), rows)
    yield "\n![Accuracy by the fraction kept](adp-annealing-accuracy.svg)\n"
    yield "## Variants, half of the weights\n"
    rows = []
    for name, (case, accuracy, seconds, gap) in VARIANTS.items():
        cells = [f"{accuracy:.4f}", *_ways(found, case, "accuracy"), f"{gap:.4f}", *_ways(found, case, "gap")]
        rows.append((name, *cells, f"{seconds:.1f}", *_ways(found, case, "seconds", 1)))
    yield from table(_head("variant", ("accuracy", "gap", "seconds")), rows)
    yield _SCHEDULE
    yield from table(("kept", "epoch", "weights, paper", "weights, here"), _schedule_rows())
    yield ""
    yield from bounds(
        within(f"accuracy {way} of every fraction kept: {low} to {high}", _accuracies(found, way), low, high)
        for way, low, high in (("as the code does it", 0.93, 0.965), ("done right", 0.975, 1.0))
    )
    yield _BOUNDS


_TEXT = """
Accuracy is that of the last epoch on the test samples. The gap ("Total_Gen_Error") is the sum over epochs of test loss
minus training loss, both in evaluation; the best test loss is the smallest of an epoch, chosen on the test samples as
the paper does. Losses of the two ways are not alike: in the author's code a softmax is followed by a cross-entropy that
applies another one, so that a perfect network still has 1.46115.

Seconds are those of one thread on the machine of this run, which did other things as well, without the losses above.

"Kept" counts the weights behind the first layer: the first layer and all biases are never pruned. As coded, the
layers behind the first keep the weights they were drawn with (SGD, learning rate {legacy:g}). Done right, every layer
trains (SGD, learning rate {rate:g}, momentum 0.9, gradients clipped to a norm of 2), masked weights are exactly zero
after every step, and a tenth of the training samples is kept out by the loop. Masks are found one epoch earlier
there, as position 0 of the schedule is the network as it came. "Retrained from scratch" finds its masks in a training
of its own, whose epochs come on top.
"""


_SCHEDULE = """
## Figure 14: weights that stay, by epoch

![Weights that stay, in the sizes of the paper](adp-annealing-schedule-paper.svg)

![Weights that stay in this run](adp-annealing-schedule.svg)

The first picture has the sizes of the paper (25 epochs, 1,452,000 weights behind the first layer) and needs no
training; its points can be compared with those that the paper shows:
"""

_BOUNDS = """
Both bounds are for training on all 60,000 samples. As coded, only the first layer and the biases learn, so that
accuracy comes late: it depends on the number of steps, and on the width. The same network before pruning, with the
width of the paper, is on the [page on Tetris](adp_tetris.md).
"""


def _schedule_rows() -> Iterator[tuple[str, ...]]:
    for keep, printed in FIGURE_14.items():
        for epoch, count in enumerate(printed, 1):
            here = annealed(epoch, 25, WEIGHTS, int(keep * WEIGHTS), MU)
            yield f"{keep:g}", f"{epoch}", f"{count:,}", f"{here:,}"


def _accuracies(found: Outcomes, way: str) -> list[float]:
    return [mean(each.accuracy for each in found[way, Case(keep=keep)]) for keep in BY_KEEP]


def _head(first: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return (first, *(f"{name}, {way}" for name in names for way in ("paper", "as coded", "done right")))


def _ways(found: Outcomes, case: Case, name: str, digits: int = 4) -> list[str]:
    return [cell((getattr(each, name) for each in found[way, case]), digits) for way in WAYS]


def figures(found: Outcomes) -> Iterator[Figure]:
    """Accuracy by the fraction kept, and the schedule: of the paper's sizes and of this run."""
    keeps = [*BY_KEEP]
    series = [Series("paper", keeps, [printed[0] for printed in BY_KEEP.values()])]
    for way in WAYS:
        runs = [[outcome.accuracy for outcome in found[way, Case(keep=keep)]] for keep in keeps]
        low, high = ([pick(run) for run in runs] for pick in (min, max))
        series.append(Series(way, keeps, [mean(run) for run in runs], low=low, high=high))
    yield Figure(
        "adp-annealing-accuracy", "Accuracy on the test samples", "fraction of weights kept", "accuracy", tuple(series)
    )
    schedule = []
    for keep in keeps:
        kept = found["done right", Case(keep=keep)][0].kept
        schedule.append(Series(f"{keep:g}", [float(i) for i in range(1, len(kept) + 1)], [float(n) for n in kept]))
    title = "Weights behind the first layer that stay: 784-1200-1200-10, 25 epochs"
    counts = tuple(_paper_schedule(keep) for keep in keeps)
    yield Figure("adp-annealing-schedule-paper", title, "epoch", "weights", counts)
    yield Figure(
        "adp-annealing-schedule", "Weights behind the first layer that stay", "epoch", "weights", tuple(schedule)
    )


def _paper_schedule(keep: float) -> Series:
    counts = [float(annealed(epoch, 25, WEIGHTS, int(keep * WEIGHTS), MU)) for epoch in range(25)]
    return Series(f"{keep:g}", [float(epoch) for epoch in range(25)], counts)


if __name__ == "__main__":
    main()
