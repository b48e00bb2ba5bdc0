"""The activation study of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right.

    python benchmarks/papers/adp_activations.py --data npz:mnist.npz [--second npz:higgs.npz] [--epochs 50]
                                                [--samples 60000] [--test 10000] [--seeds 3] [--results docs/results]

SELU, SERLU, maxout and channel-out with their dropouts. Three columns: the numbers of the paper; the author's code
(layers behind the first are never trained, softmax twice); and networks whose layers all train. A second data set,
standardised, gets a smaller table. Writes adp_activations.md and Figures 7 to 12.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import torch
from adp_network import Hidden, Watch, Way, as_coded, double_softmax_loss, draw_lecun, network, right, train
from adp_page import Samples, parser, samples, size_line
from pages import Bound, bounds, cell, start, table, write

from compress.figures import Figure, Series

P = 0.4  # of the dropouts whose probability the paper does not print
Printed = tuple[float, float, float]  # accuracy, seconds, best test error
SELF_NORMALISING = ("selu", "serlu")


@dataclass(frozen=True)
class Outcome:
    """What a run came to; losses are those of a softmax of a softmax, on training and test samples, by epoch."""

    train_accuracy: float
    accuracy: float
    losses: tuple[tuple[float, float], ...]
    seconds: float

    @property
    def best(self) -> float:
        """The smallest test loss of an epoch, chosen on the test samples."""
        return min(test for _, test in self.losses)

    @property
    def gaps(self) -> list[float]:
        """By epoch, test loss minus training loss."""
        return [test - train for train, test in self.losses]


def _rows(
    hidden: Hidden, accuracies: Sequence[float], times: Sequence[float], best: Sequence[float]
) -> dict[Hidden, Printed]:
    """Rows of one activation and dropout, with p of 0.2, 0.3, 0.4 and 0.5."""
    found = zip((0.2, 0.3, 0.4, 0.5), accuracies, times, best, strict=True)
    return {replace(hidden, p=p): (accuracy, seconds, error) for p, accuracy, seconds, error in found}


_SELU, _SERLU, _MAXOUT, _OUT = (Hidden(name) for name in ("selu", "serlu", "maxout", "channel-out"))
KINDS: Mapping[Hidden, Printed] = {
    _SELU: (0.9984, 151.3, 1.5209),
    replace(_SELU, dropout="standard", p=P): (0.9982, 162.1, 1.5180),
    replace(_SELU, dropout="alpha", p=P): (0.9981, 181.5, 1.5631),
    _SERLU: (0.9986, 272.7, 1.4930),
    replace(_SERLU, dropout="standard", p=P): (0.9991, 274.6, 1.5844),
    replace(_SERLU, dropout="shift", p=P): (0.9989, 387.6, 1.5318),
    _MAXOUT: (0.9989, 165.1, 1.4900),
    replace(_MAXOUT, dropout="standard", p=P): (0.9990, 175.6, 1.4926),
    _OUT: (0.9981, 263.3, 1.4992),
    replace(_OUT, dropout="standard", p=P): (0.9988, 276.2, 1.4917),
}
PROBABILITIES: Mapping[Hidden, Printed] = {
    **_rows(replace(_SELU, dropout="alpha"), (0.9983, 0.9981, 0.9983, 0.9984), (178, 181, 175, 177),
            (1.5367, 1.5494, 1.5625, 1.5775)),
    **_rows(replace(_SERLU, dropout="shift"), (0.9991, 0.9989, 0.9988, 0.9987), (378, 381, 379, 377),
            (1.6139, 1.5302, 1.6204, 1.5432)),
    **_rows(replace(_MAXOUT, dropout="standard"), (0.9989, 0.9989, 0.9988, 0.9990), (170, 169, 173, 175),
            (1.4904, 1.4911, 1.4915, 1.4928)),
    **_rows(replace(_MAXOUT, pool=4, dropout="standard"), (0.9989, 0.9987, 0.9989, 0.9991), (171, 170, 172, 170),
            (1.4893, 1.4893, 1.4895, 1.4915)),
    **_rows(replace(_OUT, dropout="standard"), (0.9987, 0.9989, 0.9990, 0.9988), (285, 273, 274, 281),
            (1.4897, 1.4890, 1.4892, 1.4911)),
    **_rows(replace(_OUT, pool=4, dropout="standard"), (0.9986, 0.9988, 0.9990, 0.9989), (270, 276, 275, 286),
            (1.4918, 1.4916, 1.4910, 1.4928)),
}  # fmt: skip
COMPARED = {  # in Figures 11 and 12
    "relu": Hidden("relu", dropout="standard", p=0.5),
    "selu": replace(_SELU, dropout="alpha", p=0.4),
    "serlu": replace(_SERLU, dropout="shift", p=0.4),
    "maxout": replace(_MAXOUT, pool=4, dropout="standard", p=0.5),
    "channel-out": replace(_OUT, pool=4, dropout="standard", p=0.4),
    "channel-out absmax": Hidden("channel-out absmax", 4, "standard", 0.4),
}
Found = dict[tuple[str, Hidden], list[Outcome]]


def main() -> None:
    """Trains every network with every seed in both ways, on both data sets, and writes the page."""
    given = parser(__doc__, epochs=50)
    given.add_argument("--second", help="another data set, as for --data; its features are standardised")
    given = given.parse_args()
    start(given)
    data = samples(given.data, given.samples, given.test)
    ways = (as_coded(given.legacy_lr, given.legacy_batch_size), right(given.lr, given.batch_size))
    everything = dict.fromkeys((*KINDS, *PROBABILITIES, *COMPARED.values()))
    found = study(everything, ways, data, given)
    lines = [*page(found, given, data)]
    if given.second:
        second = samples(given.second, given.samples, given.test, standardise=True)
        lines += second_table(study(KINDS, ways, second, given), second)
    write(given.results, "adp_activations", lines, figures(found))


def study(
    rows: Sequence[Hidden] | Mapping[Hidden, object], ways: Sequence[Way], data: Samples, given: argparse.Namespace
) -> Found:
    """Every network with every seed in every way."""
    found: Found = {}
    for way in ways:
        for hidden in rows:
            found[way.name, hidden] = [run(hidden, way, data, given, seed) for seed in range(given.seeds)]
            print(f"{way.name}, {named(hidden)}: {cell(each.accuracy for each in found[way.name, hidden])}", flush=True)
    return found


def run(hidden: Hidden, way: Way, data: Samples, given: argparse.Namespace, seed: int) -> Outcome:
    """One training."""
    torch.manual_seed(seed)
    model = network(data.inputs, given.width, data.classes, hidden)
    if hidden.activation in SELF_NORMALISING and not way.frozen:
        draw_lecun(model)
    watch = Watch(data.train, data.test, double_softmax_loss)
    train(model, way, data.train, given.epochs, watch)
    return Outcome(watch.train_accuracy, watch.accuracy, tuple(watch.losses), watch.seconds)


def named(hidden: Hidden) -> str:
    """For a row: the activation, the size of its pools, the dropout and its p."""
    pool = "" if hidden.activation in ("relu", *SELF_NORMALISING) else f" {hidden.pool}"
    dropout = "no dropout" if hidden.dropout == "none" else f"{hidden.dropout} dropout {hidden.p:g}"
    return f"{hidden.activation}{pool}, {dropout}"


def page(found: Found, given: argparse.Namespace, data: Samples) -> Iterator[str]:
    """What was run, and both tables of the first data set with the figures."""
    yield "# Activations and their dropouts: the tables of the paper\n"
    yield size_line("adp_activations", given, data, 50)
    yield _TEXT.format(legacy=given.legacy_lr, rate=given.lr, p=P)
    yield "## Without dropout, with standard dropout, with the activation's own\n"
    yield from table(HEAD, (_row(found, hidden, printed) for hidden, printed in KINDS.items()))
    yield "\n## By the probability of the dropout\n"
    yield from table(HEAD, (_row(found, hidden, printed) for hidden, printed in PROBABILITIES.items()))
    yield "\n## Figures 7 to 10: test loss minus training loss, by epoch\n"
    for number, activation in enumerate(("SELU", "SERLU", "Maxout", "Channel-out"), 7):
        yield f"![{activation}, as coded](adp-activations-{number}-as-coded.svg)"
        yield f"![{activation}, done right](adp-activations-{number}-done-right.svg)\n"
    yield "## Figures 11 and 12: six of them compared\n"
    for number in ("11", "12-train", "12-test"):
        yield f"![as coded](adp-activations-{number}-as-coded.svg)"
        yield f"![done right](adp-activations-{number}-done-right.svg)\n"
    yield _COMPARED
    yield from bounds(_bounds(found))
    yield _BOUNDS


HEAD = (
    "network", "accuracy, paper", "training accuracy, as coded", "done right", "test accuracy, as coded", "done right",
    "best test loss, paper", "as coded", "done right", "seconds, paper", "as coded", "done right",
)  # fmt: skip
WAYS = ("as coded", "done right")


def _row(found: Found, hidden: Hidden, printed: Printed) -> tuple[str, ...]:
    accuracy, seconds, best = printed
    cells = [f"{accuracy:.4f}", *_cells(found, hidden, "train_accuracy"), *_cells(found, hidden, "accuracy")]
    cells += [f"{best:.4f}", *_cells(found, hidden, "best")]
    return (named(hidden), *cells, f"{seconds:.1f}", *_cells(found, hidden, "seconds", 1))


def _cells(found: Found, hidden: Hidden, name: str, digits: int = 4) -> list[str]:
    return [cell((getattr(each, name) for each in found[way, hidden]), digits) for way in WAYS]


def second_table(found: Found, data: Samples) -> Iterator[str]:
    """Of the second data set, for which the paper prints no numbers."""
    yield "\n## A second data set\n"
    yield (
        f"{len(data.train):,} training and {len(data.test):,} test samples of {data.inputs} features, standardised, in"
        f" {data.classes} classes. The paper prints no numbers for such data; this is the first table again.\n"
    )
    measures = ("training accuracy", "test accuracy", "best test loss")
    head = ("network", *(f"{measure}, {way}" for measure in measures for way in WAYS))
    rows = []
    for hidden in KINDS:
        cells = [each for name in ("train_accuracy", "accuracy", "best") for each in _cells(found, hidden, name)]
        rows.append((named(hidden), *cells))
    yield from table(head, rows)


def _bounds(found: Found) -> Iterator[Bound]:
    """What the paper's text and tables say about these networks, in both ways."""
    plain = {hidden.activation: hidden for hidden in KINDS if hidden.dropout == "none"}
    for which, networks in (("Figure 11", COMPARED), ("no dropout", plain)):
        for way in WAYS:
            gaps = {name: mean(each.gaps[-1] for each in found[way, hidden]) for name, hidden in networks.items()}
            listed = ", ".join(f"{name} {gap:.4f}" for name, gap in gaps.items())
            smallest = sorted(gaps, key=lambda name: abs(gaps[name]))[:2]
            claim = f"{way}, {which}: the gaps of selu and serlu after the last epoch are the smallest"
            yield Bound(claim, listed, set(smallest) == set(SELF_NORMALISING))
    for way in WAYS:
        best = {hidden: mean(each.best for each in found[way, hidden]) for hidden in plain.values()}
        listed = ", ".join(f"{hidden.activation} {loss:.4f}" for hidden, loss in best.items())
        printed = sorted(best, key=lambda hidden: KINDS[hidden][2])
        ranked = sorted(best, key=lambda hidden: best[hidden])
        yield Bound(f"{way}, no dropout: best test losses rank as printed", listed, ranked == printed)


def figures(found: Found) -> Iterator[Figure]:
    """Figures 7 to 12, each in both ways."""
    for way in WAYS:
        for number, activation in enumerate(("selu", "serlu", "maxout", "channel-out"), 7):
            kinds = {named(hidden): hidden for hidden in KINDS if hidden.activation == activation}
            lines = {name: _mean(outcome.gaps for outcome in found[way, hidden]) for name, hidden in kinds.items()}
            yield _figure(f"{number}", f"{activation}, {way}", "test loss - training loss", lines, way)
        gaps = {name: _mean(outcome.gaps for outcome in found[way, hidden]) for name, hidden in COMPARED.items()}
        yield _figure("11", way, "test loss - training loss", gaps, way)
        for part, position in (("train", 0), ("test", 1)):
            lines = {
                name: _mean([pair[position] for pair in outcome.losses] for outcome in found[way, hidden])
                for name, hidden in COMPARED.items()
            }
            yield _figure(f"12-{part}", way, f"{part} loss", lines, way)


def _mean(runs: Iterator[list[float]]) -> list[float]:
    """By epoch, over runs."""
    return [mean(values) for values in zip(*runs, strict=True)]


def _figure(number: str, title: str, axis: str, lines: Mapping[str, list[float]], way: str) -> Figure:
    series = (Series(name, [float(i) for i in range(1, len(y) + 1)], y) for name, y in lines.items())
    return Figure(f"adp-activations-{number}-{way.replace(' ', '-')}", title, "epoch", axis, tuple(series))


_TEXT = """
Losses are cross-entropies of a softmax of a softmax, of both ways, as the paper's are: with 10 classes they lie between
1.46115 and 2.46115. The best test loss is the smallest of an epoch, chosen on the test samples as the paper does.
Accuracies are those of the last epoch. What the paper calls accuracy is .998 and more, also where its test loss is that
of a network with many errors; it is read as accuracy on the training samples.

* **As coded**: layers behind the first keep the weights they were drawn with, softmax twice, SGD with learning rate
  {legacy:g}.
* **Done right**: every layer trains (SGD, learning rate {rate:g}, momentum 0.9) on the cross-entropy of the scores.
  With SELU and SERLU weights are drawn with variance 1 / inputs, which these are made for.

Numbers behind maxout and channel-out are units of a pool. The p of the first table's dropouts is not printed; here it
is {p:g}. Learning rate, batch and L2 are not printed either. Seconds are those of one thread on the machine of this
run, which did other things as well.
"""

_COMPARED = """
Compared are ReLU with standard dropout of 0.5, SELU with alpha and SERLU with shift dropout of 0.4, and with pools of 4
maxout (0.5), channel-out and its absmax variant (0.4).
"""

_BOUNDS = """
The paper's text says that SELU and SERLU have the smallest gap. Best losses near the printed ones need its samples and
epochs; in a short run networks differ first of all in how fast they learn.
"""


if __name__ == "__main__":
    main()
