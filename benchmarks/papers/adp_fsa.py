"""The data-driven table of Resnick, "Activation, Dropout, Pruning" (2020), printed, as coded, and done right.

    python benchmarks/papers/adp_fsa.py --data npz:mnist.npz [--second npz:higgs.npz] [--epochs 25] [--samples 60000]
                                        [--test 10000] [--seeds 3] [--results docs/results]

A linear classifier with feature selection (FSA) tells how small a share of the inputs is enough; a network is pruned to
that share before its training. Accuracies of the classifier with each loss and share; of the pruned network the numbers
of the paper, the author's code (layers behind the first are never trained, softmax twice), and this project's loop and
plugin. Writes adp_fsa.md and its figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from adp_page import Samples, parser, samples, size_line
from adp_runs import Case, Sizes, as_the_code_does, done_right
from pages import Bound, bounds, cell, start, table, within, write

from compress.figures import Figure, Series
from compress.fsa import CompressionFactor, FSASettings, compression_factor, select_features

# By share kept: accuracy of FSA, of the pruned network, as printed
PRINTED = {0.2: (0.8565, 0.9448), 0.4: (0.8775, 0.9556), 0.6: (0.8795, 0.9600), 1.0: (0.8820, 0.9608)}
SHARES = tuple(PRINTED)
LOSSES = ("lorenz", "logistic", "hinge", "huber-svm", "square")
TOLERANCE = 0.01
WAYS = {"as coded": as_the_code_does, "done right": done_right}


@dataclass(frozen=True)
class Study:
    """Of one data set.

    Attributes:
        linear: By loss and share kept, accuracy of FSA on the test samples.
        networks: By way and share kept, accuracies of the networks of all seeds.
        factor: The smallest share that is good enough by cross-validation on the training samples.
    """

    linear: Mapping[tuple[str, float], float]
    networks: Mapping[tuple[str, float], Sequence[float]]
    factor: CompressionFactor


def main() -> None:
    """Does the study of one data set or two, and writes the page."""
    given = arguments()
    start(given)
    data = samples(given.data, given.samples, given.test)
    found = study(data, given)
    lines = [*page(found, given, data)]
    if given.second:
        data = samples(given.second, given.samples, given.test, standardise=True)
        lines += second_page(study(data, given), data)
    write(given.results, "adp_fsa", lines, [figure(found)])


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--second", help="another data set, as for --data; its features are standardised")
    made.add_argument("--iterations", type=int, default=300, help="steps of FSA")
    return made.parse_args()


def study(data: Samples, given: argparse.Namespace) -> Study:
    """FSA with every loss and share, the share it finds, and networks pruned to every share before their training."""
    linear, networks = {}, {}
    for loss in LOSSES:
        for share in SHARES:
            linear[loss, share] = linear_accuracy(data, FSASettings(share, loss, given.iterations))
        print(f"{loss}: {', '.join(f'{linear[loss, share]:.4f}' for share in SHARES)}", flush=True)
    x, y = data.train.inputs.numpy(), data.train.targets.numpy()
    factor = compression_factor(x, y, SHARES[:-1], TOLERANCE, settings=FSASettings(iterations=given.iterations))
    sizes = Sizes(given.epochs, given.width, given.batch_size, given.lr, given.legacy_batch_size, given.legacy_lr)
    for way, run in WAYS.items():
        for share in SHARES:
            case = Case(keep=share, variant="before" if share < 1 else "during")
            runs = [run(case, sizes, data.train, data.test, data.classes, seed) for seed in range(given.seeds)]
            networks[way, share] = [each.accuracy for each in runs]
            print(f"{way}, {share:g}: {cell(networks[way, share])}", flush=True)
    return Study(linear, networks, factor)


def linear_accuracy(data: Samples, settings: FSASettings) -> float:
    """Of FSA on the test samples."""
    found = select_features(data.train.inputs.numpy(), data.train.targets.numpy(), data.classes, settings)
    return float((found.classes(data.test.inputs.numpy()) == data.test.targets.numpy()).mean())


def page(found: Study, given: argparse.Namespace, data: Samples) -> Iterator[str]:
    """What was run, the tables of the first data set, and whether the bounds are met."""
    yield "# Pruning by what a linear classifier needs: the table of the paper\n"
    yield size_line("adp_fsa", given, data)
    yield _TEXT.format(steps=given.iterations, legacy=given.legacy_lr, rate=given.lr)
    yield "## Accuracy of FSA, by the share of features that stays\n"
    head = ("kept", "paper", *LOSSES)
    yield from table(head, ((f"{c:g}", f"{PRINTED[c][0]:.4f}", *_linear(found, c)) for c in SHARES))
    yield "\n## Accuracy of networks pruned before their training, and the distance from the whole network\n"
    head = (
        "kept",
        "paper",
        "as coded",
        "done right",
        "distance, paper",
        "as coded",
        "done right",
        "distance of FSA, paper",
        "here",
    )
    yield from table(head, (_network_row(found, c) for c in SHARES))
    yield "\n![Distance from all features and from the whole network](adp-fsa.svg)\n"
    yield _factor(found)
    yield from bounds(_bounds(found))
    yield _BOUNDS


def second_page(found: Study, data: Samples) -> Iterator[str]:
    """The same tables of another data set, of which the paper prints none."""
    yield "## A second data set\n"
    yield (
        f"{len(data.train):,} training and {len(data.test):,} test samples of {data.inputs} features, standardised, in"
        f" {data.classes} classes. The paper prints no numbers for such data.\n"
    )
    head = ("kept", *(f"FSA, {loss}" for loss in LOSSES), *(f"network, {way}" for way in WAYS))
    yield from table(head, ((f"{c:g}", *_linear(found, c), *_networks(found, c)) for c in SHARES))
    yield ""
    yield _factor(found)


def _linear(found: Study, share: float) -> list[str]:
    return [f"{found.linear[loss, share]:.4f}" for loss in LOSSES]


def _networks(found: Study, share: float) -> list[str]:
    return [cell(found.networks[way, share]) for way in WAYS]


def _distances(found: Study, way: str) -> list[float]:
    """From the whole network, by share."""
    whole = mean(found.networks[way, 1.0])
    return [whole - mean(found.networks[way, share]) for share in SHARES]


def _network_row(found: Study, share: float) -> tuple[str, ...]:
    linear, printed = PRINTED[share]
    place = SHARES.index(share)
    away = [f"{PRINTED[1.0][1] - printed:.4f}", *(f"{_distances(found, way)[place]:.4f}" for way in WAYS)]
    linear_away = (PRINTED[1.0][0] - linear, found.linear["lorenz", 1.0] - found.linear["lorenz", share])
    return (f"{share:g}", f"{printed:.4f}", *_networks(found, share), *away, *(f"{each:.4f}" for each in linear_away))


def _factor(found: Study) -> str:
    listed = ", ".join(f"{share:g}: {accuracy:.4f}" for share, accuracy in found.factor.accuracies.items())
    return (
        f"The smallest share within {TOLERANCE:g} of all features, by cross-validation on the training samples (Lorenz"
        f" loss; {listed}), is **{found.factor.factor:g}**.\n"
    )


def _bounds(found: Study) -> Iterator[Bound]:
    for loss in LOSSES:
        values = [found.linear[loss, share] for share in SHARES]
        yield within(f"accuracy of FSA with the {loss} loss: 0.85 to 0.89", values, 0.85, 0.89)
    for way in WAYS:
        worst = max(_distances(found, way))
        yield Bound(f"{way}: pruned networks are within 0.02 of the whole one", f"{worst:.4f}", worst <= 0.02)


def figure(found: Study) -> Figure:
    """Distances by share: of FSA from all features, of networks from the whole one."""
    shares = list(SHARES)
    linear = [found.linear["lorenz", 1.0] - found.linear["lorenz", share] for share in SHARES]
    series = (
        Series("FSA, paper", shares, [PRINTED[1.0][0] - PRINTED[share][0] for share in SHARES]),
        Series("FSA, here", shares, linear),
        Series("network, paper", shares, [PRINTED[1.0][1] - PRINTED[share][1] for share in SHARES]),
        *(Series(f"network, {way}", shares, _distances(found, way)) for way in WAYS),
    )
    return Figure("adp-fsa", "Accuracy lost by what is kept", "share kept", "accuracy lost", series)


_TEXT = """
FSA trains a linear classifier and drops the features with the smallest weights on the way ({steps} steps over all
samples, so that nothing in it is random; inputs standardised; classes are told apart by the sum of the losses of all
margins). The accuracy depends on the loss, so all of them are shown.

A network keeps that share of the weights of every layer behind the first, the largest as they were drawn, and is then
trained.

* **As coded**: layers behind the first keep the weights they were drawn with, softmax twice, SGD with learning rate
  {legacy:g}.
* **Done right**: this project's loop and plugin; every layer trains (SGD, learning rate {rate:g}, momentum 0.9,
  gradients clipped to a norm of 2, cross-entropy of the scores).
"""

_BOUNDS = """
An accuracy of FSA above its bound is that of a better linear classifier than the paper's. Small distances in both
columns are weak evidence for the rule: as coded, the pruned layers were never trained.
"""


if __name__ == "__main__":
    main()
