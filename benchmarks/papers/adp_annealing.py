"""The annealed-pruning tables of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right.

    python benchmarks/papers/adp_annealing.py --data npz:mnist.npz [--epochs 25] [--samples 60000] [--test 10000]
                                              [--seeds 3] [--results docs/results]

Three columns: the numbers of the paper; what the author's code does (layers behind the first are never trained, softmax
twice, SGD with learning rate 4); and this project's loop and plugin (all layers train, cross-entropy of the scores, SGD
with learning rate 0.1 and momentum 0.9, masks applied after every step). Writes adp_annealing.md and its figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from adp_runs import Case, Outcome, Sizes, as_the_code_does, done_right

from compress.data import Split, load_data
from compress.figures import Figure, Series
from compress.report.plots import svg

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
Outcomes = dict[tuple[str, Case], list[Outcome]]


def main() -> None:
    """Runs every case with every seed in both ways, and writes the page."""
    given = arguments()
    torch.set_num_threads(given.threads)
    data = load_data(given.data)
    if data.train is None:
        raise SystemExit(f"{given.data} has no training part")
    train, test = (_first(split, n) for split, n in ((data.train, given.samples), (data.test, given.test)))
    sizes = Sizes(given.epochs, given.width, given.batch_size, given.lr, given.legacy_batch_size, given.legacy_lr)
    cases = list(dict.fromkeys([Case(keep=keep) for keep in BY_KEEP] + [case for case, *_ in VARIANTS.values()]))
    found: Outcomes = {}
    for way, run in WAYS.items():
        for case in cases:
            found[way, case] = [run(case, sizes, train, test, data.classes, seed) for seed in range(given.seeds)]
            print(f"{way}, {case}: accuracy {_cell(found[way, case], 'accuracy')}", flush=True)
    given.results.mkdir(parents=True, exist_ok=True)
    page = markdown(found, given, len(train), len(test))
    for figure in figures(found):
        (given.results / f"{figure.name}.svg").write_text(svg(figure), "utf-8")
    (given.results / "adp_annealing.md").write_text(page, "utf-8")
    print(page)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as for compress: npz:PATH, digits, ...")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--samples", type=int, default=60_000, help="training samples, the first so many")
    parser.add_argument("--test", type=int, default=10_000, help="test samples, the first so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=1200, help="of both hidden layers")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.1, help="of the way that is right")
    parser.add_argument("--legacy-batch-size", type=int, default=100)
    parser.add_argument("--legacy-lr", type=float, default=4.0, help="of the author's way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    return parser.parse_args()


def _first(split: Split, count: int) -> Split:
    flat = split.inputs.flatten(1)
    return Split(flat[:count], split.targets[:count])


def _cell(outcomes: list[Outcome], name: str, digits: int = 4) -> str:
    values = [getattr(outcome, name) for outcome in outcomes]
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def markdown(found: Outcomes, given: argparse.Namespace, train: int, test: int) -> str:
    """The page: what was run, and both tables."""
    return "\n".join(_page(found, given, train, test)) + "\n"


def _page(found: Outcomes, given: argparse.Namespace, train: int, test: int) -> Iterator[str]:
    full = (train, test, given.epochs, given.width) == (60_000, 10_000, 25, 1200)
    sizes = (
        f"{train:,} training and {test:,} test samples",
        f"{given.epochs} epochs",
        f"hidden layers of {given.width:,}",
        f"batches of {given.batch_size} ({given.legacy_batch_size} as coded)",
        f"{given.seeds} seeds (mean ± deviation)" if given.seeds > 1 else "one seed",
    )
    short = (
        " The paper has 60,000 and 10,000 samples, 25 epochs and hidden layers of 1,200: this is a **short run**, whose"
        " accuracies are not those of the full one."
    )
    yield "# Annealed pruning: the tables of the paper\n"
    yield f"Written by `python benchmarks/papers/adp_annealing.py` with {', '.join(sizes)}.{'' if full else short}"
    yield _TEXT.format(legacy=given.legacy_lr, rate=given.lr)
    yield "## By the fraction of weights that stays\n"
    yield from _head("kept", ("accuracy", "gap", "best test loss"))
    for keep, printed in BY_KEEP.items():
        pairs = zip(printed, ("accuracy", "gap", "best"), strict=True)
        cells = [cell for value, name in pairs for cell in (f"{value:.4f}", *_ways(found, Case(keep=keep), name))]
        yield f"| {keep:g} | {' | '.join(cells)} |"
    yield "\n![Accuracy by the fraction kept](adp-annealing-accuracy.svg)\n"
    yield "![Weights that stay](adp-annealing-schedule.svg)\n"
    yield "## Variants, half of the weights\n"
    yield from _head("variant", ("accuracy", "gap", "seconds"))
    for name, (case, accuracy, seconds, gap) in VARIANTS.items():
        cells = [f"{accuracy:.4f}", *_ways(found, case, "accuracy"), f"{gap:.4f}", *_ways(found, case, "gap")]
        cells += [f"{seconds:.1f}", *_ways(found, case, "seconds", 1)]
        yield f"| {name} | {' | '.join(cells)} |"


_TEXT = """
Accuracy is that of the last epoch on the test samples. The gap ("Total_Gen_Error") is the sum over epochs of test loss
minus training loss, both in evaluation; the best test loss is the smallest of an epoch, chosen on the test samples as
the paper does. Losses of the two ways are not alike: in the author's code a softmax is followed by a cross-entropy that
applies another one, so that a perfect network still has 1.46115.

Seconds are those of one thread on the machine of this run, which did other things as well, without the losses above.

"Kept" counts the weights behind the first layer: the first layer and all biases are never pruned. As coded, the layers
behind the first keep the weights they were drawn with (SGD, learning rate {legacy:g}). Done right, every layer trains
(SGD, learning rate {rate:g}, momentum 0.9), masked weights are exactly zero after every step, and a tenth of the
training samples is kept out by the loop. Masks are found one epoch earlier there, as position 0 of the schedule is the
network as it came. "Retrained from scratch" finds its masks in a training of its own, whose epochs come on top.
"""


def _head(first: str, names: tuple[str, ...]) -> Iterator[str]:
    columns = [first, *(f"{name}, {way}" for name in names for way in ("paper", "as coded", "done right"))]
    yield f"| {' | '.join(columns)} |"
    yield f"|:---|{'---:|' * (len(columns) - 1)}"


def _ways(found: Outcomes, case: Case, name: str, digits: int = 4) -> list[str]:
    return [_cell(found[way, case], name, digits) for way in WAYS]


def figures(found: Outcomes) -> Iterator[Figure]:
    """Accuracy by the fraction kept, and the schedule."""
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
    yield Figure(
        "adp-annealing-schedule", "Weights behind the first layer that stay", "epoch", "weights", tuple(schedule)
    )


if __name__ == "__main__":
    main()
