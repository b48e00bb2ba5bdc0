"""Tables 5 and 6 of Parvatharaju and Narasimha Murthy, "Differentiable Learning by means of Neural Network Pruning".

    python benchmarks/papers/dsc.py --mnist npz:mnist.npz --fashion npz:fashion_mnist.npz --cifar npz:cifar10.npz
                                    [--tables 5,6] [--samples 60000] [--test 10000] [--epochs 10] [--cifar-epochs 100]
                                    [--seeds 3] [--results docs/results]

Three columns for every data set: the test accuracy that is printed; the same network trained as the authors' logs say;
and this project's plugin and loop on the cross-entropy. Writes dsc.md and its figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from dsc_runs import Outcome, Recorded, as_recorded, done_right, pruned, settings
from pages import Bound, bounds, cell, start, table, within, write
from torch import Tensor

from compress.data import Split, load_data
from compress.figures import Figure, Series

# Table, then row, then data set: test accuracy as printed
PRINTED = {
    5: {
        "FFN": {"mnist": 0.91, "fashion": 0.74, "cifar": 0.20},
        "GSC": {"mnist": 0.93, "fashion": 0.79, "cifar": 0.29},
        "DSC": {"mnist": 0.96, "fashion": 0.79, "cifar": 0.40},
        "DSC-10p": {"mnist": 0.89, "fashion": 0.74, "cifar": 0.38},
    },
    6: {
        "FFN": {"mnist": 0.74, "fashion": 0.70, "cifar": 0.22},
        "GSC": {"mnist": 0.85, "fashion": 0.76, "cifar": 0.28},
        "DSC": {"mnist": 0.89, "fashion": 0.79, "cifar": 0.33},
        "DSC-10p": {"mnist": 0.87, "fashion": 0.77, "cifar": 0.26},
    },
}
FORMS = {"FFN": "ffn", "GSC": "gsc", "DSC": "dsc", "DSC-10p": "dsc"}
# Widths of the runs behind the tables, with the output layer; the text has 60 for the second layer on CIFAR
WIDTHS = {"mnist": (100, 50, 10), "fashion": (100, 50, 10), "cifar": (150, 100, 10)}
SMALL = {"mnist": (10, 10, 10), "fashion": (10, 10, 10), "cifar": (15, 10, 10)}
NORMALISED = {"mnist": (0.1307, 0.3081), "fashion": (0.5, 0.5), "cifar": (0.5, 0.5)}
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
GREY = (0.299, 0.587, 0.114)
HALF = "DSC, half of the inputs"
Found = dict[tuple[int, str, str, str], list[Outcome]]  # table, row, data set, way


@dataclass(frozen=True)
class Samples:
    """Flat samples, normalised."""

    train: Split
    test: Split


def main() -> None:
    """Runs every row on every data set with every seed in both ways, and writes the page."""
    given = _parser().parse_args()
    start(given)
    found: Found = {}
    for name in ("mnist", "fashion", "cifar"):
        if getattr(given, name) is not None:
            data = samples(getattr(given, name), name, given)
            for number in _tables(given):
                _run(found, number, name, data, given)
    write(given.results, "dsc", page(found, given), figures(found))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in WIDTHS:
        made.add_argument(f"--{name}", help="as --data of compress; left out without it")
    made.add_argument("--tables", default="5,6", help="5: all samples, 6: a tenth of them")
    made.add_argument("--samples", type=int, default=60_000, help="training samples of table 5, the first so many")
    made.add_argument("--test", type=int, default=10_000, help="test samples, the first so many")
    made.add_argument("--epochs", type=int, default=10, help="on MNIST and Fashion-MNIST")
    made.add_argument("--cifar-epochs", type=int, default=100)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--lr", type=float, default=0.002, help="of the way that is right")
    made.add_argument("--batch-size", type=int, default=128, help="of the way that is right")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=Path("docs/results"))
    return made


def _tables(given: argparse.Namespace) -> list[int]:
    return [int(each) for each in given.tables.split(",")]


def samples(spec: str, name: str, given: argparse.Namespace) -> Samples:
    """Grey, normalised as the authors do it, flat."""
    data = load_data(spec)
    if data.train is None:
        raise SystemExit(f"{spec} has no training part")

    def flat(split: Split, count: int) -> Split:
        x: Tensor = split.inputs[:count]
        if x.dim() == 4 and x.shape[1] == 3:
            x = sum(weight * x[:, i] for i, weight in enumerate(GREY))  # type: ignore[assignment]
        centre, scale = NORMALISED[name]
        return Split((x.flatten(1) - centre) / scale, split.targets[:count])

    return Samples(flat(data.train, given.samples), flat(data.test, given.test))


def recorded(number: int, name: str, given: argparse.Namespace) -> Recorded:
    """As the logs of the runs have it."""
    if name == "cifar":
        return Recorded(False, 0.01, 32, given.cifar_epochs)
    return Recorded(number == 5, 0.01 if number == 5 else 0.1, 256, given.epochs)


def _run(found: Found, number: int, name: str, data: Samples, given: argparse.Namespace) -> None:
    train = data.train
    if number == 6:
        tenth = max(1, len(train) // 10)
        train = Split(train.inputs[:tenth], train.targets[:tenth])
    way = settings(given.cifar_epochs if name == "cifar" else given.epochs, given.lr, given.batch_size)
    old = recorded(number, name, given)
    for row, form in FORMS.items():
        widths = SMALL[name] if row == "DSC-10p" else WIDTHS[name]
        for seed in range(given.seeds):
            both = (
                ("recorded", as_recorded(form, widths, old, train, data.test, seed)),  # type: ignore[arg-type]
                ("right", done_right(form, widths, way, train, data.test, seed)),  # type: ignore[arg-type]
            )
            for kind, outcome in both:
                found.setdefault((number, row, name, kind), []).append(outcome)
        print(
            f"table {number}, {name}, {row}: {cell(o.accuracy for o in found[number, row, name, 'right'])}", flush=True
        )
    twice = replace(way, epochs=2 * way.epochs)
    found[number, HALF, name, "right"] = [
        pruned(WIDTHS[name], 0.5, twice, train, data.test, seed) for seed in range(given.seeds)
    ]


def page(found: Found, given: argparse.Namespace) -> Iterator[str]:
    """What was run, and the tables."""
    names = [name for name in WIDTHS if getattr(given, name) is not None]
    yield "# Differentiable short circuits: tables 5 and 6 of the paper\n"
    sizes = [f"{given.samples:,} training and {given.test:,} test samples", f"{given.epochs} epochs"]
    sizes += [f"{given.cifar_epochs} epochs on CIFAR-10"] * ("cifar" in names) + [f"{given.seeds} seeds"]
    yield f"Written by `python benchmarks/papers/dsc.py` with {', '.join(sizes)}, mean ± deviation."
    if given.samples < 50_000 or given.epochs < 10 or ("cifar" in names and given.cifar_epochs < 100):
        yield "The paper has all samples, 10 epochs and 100 on CIFAR-10: this is a **short run**."
    yield _TEXT.format(lr=given.lr, batch=given.batch_size)
    for number in _tables(given):
        yield f"## Table {number}: {'all samples' if number == 5 else 'a tenth of the samples'}\n"
        ways = ("paper", "recorded", "done right")
        yield from table(("", *(f"{name}, {way}" for name in names for way in ways)), _rows(found, number, names))
        yield ""
    yield "## Confidence\n"
    yield _CONFIDENCE
    yield from table(("", *names), _confidence(found, max(_tables(given)), names))
    yield ""
    for number in _tables(given):
        for name in names:
            yield f"![Accuracy by epoch](dsc-{number}-{name}.svg)\n"
    yield from bounds(_bounds(found, names))


_TEXT = """
Test accuracy. *Paper* is what is printed. *Recorded* are the settings in the logs of those runs: Adam with a constant
rate of 0.01 (0.1 in table 6 on MNIST and Fashion-MNIST), batches of 256 (32 on CIFAR-10, grey), and in table 5 on
MNIST and Fashion-MNIST the mean of -p as the loss, where a log is missing. *Done right* is the cross-entropy with
AdamW ({lr:g}, on a cosine, gradients clipped to a norm of 2), batches of {batch}, the epoch chosen on a tenth of the
training samples. Widths are those of the runs: 100 and 50, on CIFAR-10 150 and 100 (the text has 60); "10p" is 10 and
10, or 15 and 10. The last row is the plugin from scratch: half of the inputs of all layers go after half of twice as
many epochs; the mean of its parameters stands in brackets.
"""

_CONFIDENCE = """Mean over classes of the mean largest probability of the test samples that are right, done right; in
brackets the number of classes that have any.
"""


def _rows(found: Found, number: int, names: list[str]) -> Iterator[tuple[str, ...]]:
    for row, printed in PRINTED[number].items():
        cells = []
        for name in names:
            ways = (cell((o.accuracy for o in found[number, row, name, way]), 3) for way in ("recorded", "right"))
            cells += [f"{printed[name]:.2f}", *ways]
        yield (row, *cells)
    cells = []
    for name in names:
        half = found[number, HALF, name, "right"]
        cells += ["", "", f"{cell((o.accuracy for o in half), 3)} ({mean(o.parameters for o in half):,.0f})"]
    yield (HALF, *cells)


def _confidence(found: Found, number: int, names: list[str]) -> Iterator[tuple[str, ...]]:
    for row in FORMS:
        cells = []
        for name in names:
            runs = found[number, row, name, "right"]
            cells.append(f"{cell((o.confidence for o in runs), 3)} ({min(o.classes for o in runs)})")
        yield (row, *cells)


def _bounds(found: Found, names: list[str]) -> Iterator[Bound]:
    def accuracies(number: int, name: str, way: str) -> list[float]:
        return [mean(o.accuracy for o in found[number, row, name, way]) for row in ("FFN", "GSC", "DSC")]

    for number, name in ((n, each) for n in PRINTED for each in names if (n, "FFN", each, "recorded") in found):
        pairs = zip(("GSC", "DSC"), accuracies(number, name, "recorded")[1:], strict=True)
        off = [abs(accuracy - PRINTED[number][row][name]) for row, accuracy in pairs]
        claim = f"table {number} as recorded, {TITLES[name]}: GSC and DSC lie within 0.03 of the paper"
        yield within(claim, off, 0.0, 0.03)
    if (6, "FFN", "mnist", "recorded") in found:
        plain, *forms = accuracies(6, "mnist", "recorded")
        yield within("table 6 as recorded, MNIST: GSC and DSC reach 0.84", forms, 0.84)
        yield within("table 6 as recorded, MNIST: FFN stays below 0.80 and below both", [plain], 0.0, min(0.80, *forms))
        gsc, dsc = forms
        yield Bound("table 6 as recorded, MNIST: GSC is no better than DSC", f"{gsc:.4f} and {dsc:.4f}", gsc <= dsc)
        right = accuracies(6, "mnist", "right")
        spread = max(right) - min(right)
        yield within("table 6 done right, MNIST: the three forms lie within 0.02 of each other", [spread], 0.0, 0.02)
    if (5, "FFN", "mnist", "right") in found:
        every = accuracies(5, "mnist", "right")
        yield within("table 5 done right, MNIST: all three forms reach 0.97", every, 0.97)
        yield within("table 5 done right, MNIST: DSC lies within 0.01 of FFN", [abs(every[2] - every[0])], 0.0, 0.01)
    if (5, "FFN", "cifar", "recorded") in found:
        plain, _, gated = accuracies(5, "cifar", "recorded")
        yield within("table 5 as recorded, CIFAR-10: FFN stays at 0.27 or below", [plain], 0.0, 0.27)
        yield within("table 5 as recorded, CIFAR-10: DSC reaches 0.36", [gated], 0.36)


def figures(found: Found) -> Iterator[Figure]:
    """Accuracy by epoch of the four networks as recorded, of the first seed."""
    for number, name in dict.fromkeys((number, name) for number, _, name, _ in found):
        series = []
        for row in FORMS:
            curve = found[number, row, name, "recorded"][0].curve
            series.append(Series(row, [float(i) for i in range(1, len(curve) + 1)], list(curve)))
        title = f"{name}: training accuracy as recorded"
        yield Figure(f"dsc-{number}-{name}", title, "epoch", "accuracy on training samples", tuple(series))


if __name__ == "__main__":
    main()
