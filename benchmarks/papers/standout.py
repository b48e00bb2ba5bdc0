"""The tables of Dutta and Mitra, "A Minimal Gradient Flow Method for Adaptive Node Pruning" (2020), printed and run.

    python benchmarks/papers/standout.py --data npz:fashion_mnist.npz [--samples 60000] [--test 10000] [--seeds 5]
                                         [--period 25] [--adam 400] [--runs large:16,...] [--results docs/results]

Both networks are pruned from 512 units to the widths of the paper, with ReLU and leaky ReLU, beside networks that have
these widths from the start, and the wide one with dropout. A second series goes down to one unit, for several gamma and
periods. Writes standout.md and its figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch
from mgf_runs import SYSTEMS, WIDE, Case, Curve, Protocol, Samples, down, trained
from pages import bounds, cell, start, table, within, write

from compress.data import load_data
from compress.figures import Figure, Series

# The highest test accuracy of an epoch, by network and width; systems in the order of SYSTEMS. Large: epochs averaged
# over five runs; small: the best run.
PAPER = {
    ("large", 16): (0.91784, 0.91966, 0.92016, 0.92078),
    ("large", 32): (0.91936, 0.91984, 0.92142, 0.92154),
    ("large", 64): (0.92050, 0.91994, 0.92002, 0.92208),
    ("large", 128): (0.92260, 0.92138, 0.92010, 0.92288),
    ("small", 16): (0.9183, 0.9198, 0.9190, 0.9214),
    ("small", 32): (0.9203, 0.9200, 0.9178, 0.9212),
}
PAPER_DROPOUT = 0.92262  # 512 units, large
FULL = Protocol(period=25, adam=400, batch=128, rate=0.01)
Key = tuple[str, int]
Found = dict[tuple[Key, str], list[Curve]]


def main() -> None:
    """Runs every system with every seed, and writes the page."""
    given = _parser().parse_args()
    start(given)
    data = _samples(given)
    protocol = Protocol(given.period, given.adam, given.batch_size, given.lr)
    keys = [_key(text) for text in given.runs.split(",")]
    found: Found = {}
    for size, nodes in keys:
        for name, (pruned, leaky) in SYSTEMS.items():
            case = Case(size, nodes, pruned, leaky)
            found[(size, nodes), name] = [trained(case, protocol, data, seed) for seed in range(given.seeds)]
            print(f"{size} {nodes}, {name}: {_best(found[(size, nodes), name])}", flush=True)
    wide = Case("large", WIDE, pruned=False, leaky=False, dropout=0.5)
    dropout = [trained(wide, protocol, data, seed) for seed in range(given.seeds)]
    pairs = [(float(g), int(p)) for g, _, p in (text.partition(":") for text in given.down.split(","))]
    ways = {pair: down(*pair, given.down_size, protocol, data) for pair in pairs}
    write(given.results, "standout", page(given, data, found, dropout, ways), figures(found, dropout, ways))


def _parser() -> argparse.ArgumentParser:
    """Defaults are the sizes of the paper."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="images of 28 x 28 and ten classes, as for compress: npz:PATH")
    made.add_argument("--samples", type=int, default=60_000, help="training samples, the first so many")
    made.add_argument("--test", type=int, default=10_000, help="test samples, the first so many")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--period", type=int, default=FULL.period, help="epochs between two prunings")
    made.add_argument("--adam", type=int, default=FULL.adam, help="epochs of Adam of a pruned network")
    made.add_argument("--batch-size", type=int, default=FULL.batch)
    made.add_argument("--lr", type=float, default=FULL.rate, help="of SGD")
    made.add_argument("--runs", default=",".join(f"{size}:{nodes}" for size, nodes in PAPER), help="network:units,...")
    made.add_argument("--down", default="0.5:25,0.5:10,0.25:25", help="gamma:period,... of the runs to one unit")
    made.add_argument("--down-size", choices=("large", "small"), default="large")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=Path("docs/results"))
    return made


def _key(text: str) -> Key:
    size, _, nodes = text.partition(":")
    if (size, int(nodes or 0)) not in PAPER:
        raise SystemExit(f"--runs {text}: the paper has {', '.join(f'{s}:{n}' for s, n in PAPER)}")
    return size, int(nodes)


def _samples(given: argparse.Namespace) -> Samples:
    data = load_data(given.data)
    if data.train is None or tuple(data.test.inputs.shape[1:]) != (1, 28, 28):
        raise SystemExit(f"{given.data}: a training part and grey images of 28 x 28 are needed")
    parts = ((data.train, given.samples), (data.test, given.test))
    return Samples(*(type(part)(part.inputs[:n], part.targets[:n]) for part, n in parts))


def page(
    given: argparse.Namespace, data: Samples, found: Found, dropout: list[Curve], ways: dict[tuple[float, int], Curve]
) -> Iterator[str]:
    """What was run, and the tables."""
    train, test = len(data.train), len(data.test)
    yield "# Standout: the tables of the paper\n"
    seeds = f"{given.seeds} seeds (mean ± deviation)" if given.seeds > 1 else "one seed"
    line = f"Written by `python benchmarks/papers/standout.py` with {train:,} training and {test:,} test samples, "
    line += f"period {given.period}, {given.adam} epochs of Adam, batches of {given.batch_size}, "
    line += f"learning rate {given.lr:g} for SGD, {seeds}."
    if (train, test, given.period, given.adam) != (60_000, 10_000, FULL.period, FULL.adam):
        line += " The paper has 60,000 and 10,000 samples, period 25 and 400 epochs of Adam: this is a "
        line += "**short run**, whose accuracies are not those of the full one."
    yield line
    yield _TEXT
    rows = []
    for key in dict.fromkeys(key for key, _ in found):
        for i, name in enumerate(SYSTEMS):
            runs = found[key, name]
            rows.append((f"{key[0]}, {key[1]}, {name}", f"{PAPER[key][i]:.4f}", _best(runs), _last(runs), _loss(runs)))
    rows.append(("large, 512, dropout", f"{PAPER_DROPOUT:.4f}", _best(dropout), _last(dropout), _loss(dropout)))
    yield from table(("network", "best epoch, paper", "best epoch, here", "last epoch, here", "last loss, here"), rows)
    yield ""
    for size, nodes in dict.fromkeys(key for key, _ in found):
        yield f"![{size}, {nodes} units](standout-{size}-{nodes}.svg)\n"
    yield _DOWN.format(size=given.down_size)
    rows = [
        (f"{gamma:g}, every {period}", ", ".join(str(n) for _, n in way.prunings), f"{way.accuracy[-1]:.4f}")
        for (gamma, period), way in ways.items()
    ]
    yield from table(("gamma, period", "units left", "accuracy at the end"), rows)
    yield "\n![Loss on the way to one unit](standout-down-loss.svg)\n"
    yield "![Accuracy on the way to one unit](standout-down-accuracy.svg)\n"
    yield from bounds(_bounds(found))
    yield _BOUNDS


_TEXT = """
Units are those of the hidden linear layer; pruned networks start with 512. Accuracy is on the test samples. "Best
epoch" is the highest of an epoch behind the last pruning, chosen on the test samples as the paper does; the last epoch
chooses nothing. The loss is the binary cross-entropy of ten logistic outputs, mean over samples and classes, on the
test samples.

Pruned networks are trained by SGD with momentum 0.9 until one period after the last pruning, then by Adam (0.001);
fixed ones by SGD for four periods and by Adam for the rest of the same number of epochs. The paper gives neither the
gate's constants nor the leaky slope: here alpha is 0.5, beta 1 and the slope 0.01. A fiftieth of the training samples
is kept out by the loop, gradients are clipped to a norm of 2. The network of every epoch is judged, after its pruning
where it has one.
"""

_BOUNDS = """
Both bounds are for the full protocol. They do not say which system is the best: the paper's differences are below the
standard error of one test set of 10,000 images, 0.0027.
"""

_DOWN = """## Down to one unit

The {size} network, ReLU, pruned until one unit of 512 is left, by SGD alone.
"""


def _best(runs: Sequence[Curve]) -> str:
    return cell(run.best for run in runs)


def _last(runs: Sequence[Curve]) -> str:
    return cell(run.accuracy[-1] for run in runs)


def _loss(runs: Sequence[Curve]) -> str:
    return cell(run.loss[-1] for run in runs)


def _bounds(found: Found) -> Iterator:
    last = {key: mean(run.accuracy[-1] for run in runs) for key, runs in found.items()}
    yield within("accuracy of every network: 0.910 to 0.930", list(last.values()), 0.91, 0.93)
    gaps = [abs(last[key, "pruned"] - last[key, "fixed"]) for key in dict.fromkeys(key for key, _ in found)]
    yield within("pruned and fixed of one width, ReLU: at most 0.006 apart", gaps, 0.0, 0.006)


def figures(found: Found, dropout: list[Curve], ways: dict[tuple[float, int], Curve]) -> Iterator[Figure]:
    """Accuracy by epoch of every width, and loss and accuracy on the way to one unit."""
    for size, nodes in dict.fromkeys(key for key, _ in found):
        systems = {name: found[(size, nodes), name] for name in SYSTEMS}
        if size == "large":
            systems["512, dropout"] = dropout
        series = [_mean(name, [run.accuracy for run in runs]) for name, runs in systems.items()]
        title = f"Accuracy on the test samples: {size} network, {nodes} units"
        yield Figure(f"standout-{size}-{nodes}", title, "epoch", "accuracy", tuple(series))
    for what in ("loss", "accuracy"):
        series = [_by_units(f"gamma {g:g}, every {period}", way, what) for (g, period), way in ways.items()]
        title = f"{what.capitalize()} on the test samples, down to one unit"
        yield Figure(f"standout-down-{what}", title, "units left", what, tuple(series), log_x=True)


def _by_units(label: str, way: Curve, what: str) -> Series:
    """The value at the end of the time for which a network has so many units."""
    values = getattr(way, what)
    ends = [epoch - 1 for epoch, _ in way.prunings[1:]] + [len(values)]
    units = [n for _, n in way.prunings]
    last = {n: values[end - 1] for n, end in zip(units, ends, strict=True)}  # rounding may leave as many as before
    return Series(label, list(last), list(last.values()))


def _mean(label: str, runs: Iterable[Sequence[float]]) -> Series:
    values = torch.tensor([list(run) for run in runs]).mean(0).tolist()
    return Series(label, list(range(1, len(values) + 1)), values)


if __name__ == "__main__":
    main()
