"""Table 2 of Lee, "Differentiable Sparsification for Deep Neural Networks" (2019), printed and run on a small network.

    python benchmarks/papers/ds_wirings.py --data npz:cifar10.npz [--epochs 160] [--samples 50000] [--test 10000]
                                           [--channels 32] [--keep 0.15] [--seeds 5] [--results docs/results]

Which edges between channels does a network need? In every stage each layer reads all earlier ones by a 1x1 convolution,
whose weights are the edges. Compared are dense networks, the largest edges (DNW), proximal steps (PG), and learned
thresholds (DS) without and with the rectified gradient, all by this project's loop and plugin. Writes ds_wirings.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from pages import Bound, bounds, cell, start, table, write
from torch import Tensor, fx, nn

from compress.data import Split, load_data
from compress.figures import Figure, Series
from compress.graph import analyse, attribute, trace
from compress.plugin import Context
from compress.recover import InSession, finetune
from compress.retrain import folded, plan_of, start_session
from compress.training import Training
from compress_plugins.wiring import Wiring

# Error in percent, parameters and multiply-adds, as printed (CIFAR-10, 160 epochs, 5 runs)
PRINTED = {
    "dense, narrow": ("MobileNetV1 x0.25", "13.44 ± .24", "2.2e5", "3.3e6"),
    "DNW": ("DNW x0.225", "10.30 ± .20", "1.8e5", "3.1e6"),
    "PG l1": ("PG l1", "12.17 ± .44", "2.1e4", "3.3e6"),
    "PG l1,2": ("PG l1,2", "13.62 ± .56", "9.6e4", "3.4e6"),
    "DS": ("DS, no rectified gradient", "10.55 ± .23", "6.1e4", "3.4e6"),
    "DS rectified": ("DS, rectified gradient", "9.36 ± .27", "4.7e4", "3.3e6"),
}
METHODS: dict[str, dict[str, Any]] = {
    "DNW": {"by": "dnw"},
    "PG l1": {"by": "proximal"},
    "PG l1,2": {"by": "proximal", "norm": "l12"},
    "PG l1,2 exact": {"by": "proximal", "norm": "l12-exact"},
    "DS": {},
    "DS rectified": {"rectified": True},
}
# By stage of MobileNetV1: channels in, channels out, blocks
STAGES = ((32, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 6), (512, 1024, 2))


def stage_edges(width: float) -> list[float]:
    """Edges that the DNW of a width keeps in every stage: as many as the 1x1 convolutions of a MobileNetV1 have."""
    return [(i * o + (blocks - 1) * o * o) * width**2 for i, o, blocks in STAGES]


class Layer(nn.Module):
    """A depthwise 3x3 convolution, and a 1x1 convolution that reads it and all that came before in the stage."""

    def __init__(self, last: int, earlier: int, channels: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(last, last, 3, padding=1, groups=last, bias=False)
        self.deep_norm = nn.BatchNorm2d(last)
        self.edges = nn.Conv2d(last + earlier, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, last: Tensor, earlier: list[Tensor]) -> Tensor:
        x = torch.relu(self.deep_norm(self.deep(last)))
        return torch.relu(self.norm(self.edges(torch.cat((x, *earlier), 1))))


class Stage(nn.Module):
    """Layers of which each reads all earlier ones, behind a stride of two."""

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        made, last, earlier = [], inputs, 0
        for _ in range(layers):
            made.append(Layer(last, earlier, channels))
            earlier, last = earlier + last, channels
        self.layers = nn.ModuleList(made)

    def forward(self, x: Tensor) -> Tensor:
        earlier: list[Tensor] = []
        last = nn.functional.avg_pool2d(x, 2)
        for layer in self.layers:
            made = layer(last, earlier)
            earlier.append(last)
            last = made
        return last


def network(inputs: int, classes: int, channels: int) -> nn.Module:
    """A stem and two stages of two layers, of so many channels and twice as many."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        Stage(channels // 2, channels, 2),
        Stage(channels, 2 * channels, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, classes),
    )


@dataclass(frozen=True)
class Outcome:
    """What a run came to: error in percent, edges, parameters and multiply-adds that are not zero, seconds."""

    error: float
    edges: int
    nonzero: int
    mult_adds: int
    seconds: float
    by_epoch: tuple[float, ...]


def run(name: str, given: argparse.Namespace, train: Split, test: Split, classes: int, seed: int) -> Outcome:
    """Train one network; the epoch is chosen on a tenth of the training samples."""
    torch.manual_seed(seed)
    channels = given.channels
    if name == "dense, narrow":
        channels = max(2, 2 * round(channels * math.sqrt(given.keep) / 2))
    program = trace(network(train.inputs.shape[1], classes, channels).eval(), (train.inputs[:2],))
    settings = Training(
        epochs=given.epochs, lr=given.lr, batch_size=given.batch_size, weight_decay=1e-4, nesterov=False, warmup=0,
        patience=0, distill="none", augment=given.augment, clip_norm=0,
    )  # fmt: skip
    begin, trained, history = time.perf_counter(), program.module, []
    if name in METHODS:
        context = Context(analyse(program), granularity="weight", seed=seed, has_budget=False)
        session = start_session(Wiring(keep=given.keep, **METHODS[name]), context)
        done = finetune(session.network, train, settings, seed=seed, hooks=(InSession(session),))
        trained, history = folded(session, done.module, program).module, [e["edges"] for e in done.history]
        plan_of(session, context.on(trained))
    else:
        trained = finetune(trained, train, settings, seed=seed).module
    edges = [p for n, p in trained.named_parameters() if n.endswith("edges.weight")]
    return Outcome(
        error=100 * error(trained, test),
        edges=sum(int(torch.count_nonzero(p)) for p in edges),
        nonzero=sum(int(torch.count_nonzero(p)) for p in trained.parameters()),
        mult_adds=mult_adds(trained),
        seconds=time.perf_counter() - begin,
        by_epoch=tuple(map(float, history)),
    )


def error(model: fx.GraphModule, test: Split) -> float:
    """Share of the samples that a network gets wrong."""
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in test.inputs.split(500)])
    return float((found != test.targets).float().mean())


def mult_adds(model: fx.GraphModule) -> int:
    """Products with weights that are not zero, of one sample."""
    total = 0
    for node in model.graph.nodes:
        if node.op == "call_function" and node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            weight = attribute(model, str(node.args[1].target))
            total += int(torch.count_nonzero(weight)) * math.prod(node.meta["val"].shape[2:])
    return total


def page(given: argparse.Namespace, found: Mapping[str, list[Outcome]], train: int, test: int) -> Iterator[str]:
    """The page, line by line."""
    seeds = f"{given.seeds} seeds (mean ± deviation)" if given.seeds > 1 else "one seed"
    yield "# Wirings: Table 2 of the paper\n"
    yield (
        f"Written by `python benchmarks/papers/ds_wirings.py` with {train:,} training and {test:,} test samples, "
        f"{given.epochs} epochs, {given.channels} and {2 * given.channels} channels, batches of {given.batch_size}, "
        f"{given.keep:.0%} of the edges and {seeds}. The paper has CIFAR-10 whole, 160 epochs and networks of the size "
        "of MobileNetV1: this is a **short run** of a **smaller network**, whose errors are not those of the paper.\n"
    )
    yield NOTES
    spread = 50 / math.sqrt(test)
    yield f"The standard error of an error near a half is {spread:.1f} points with so many test samples.\n"
    printed = ("printed for", "error %, printed", "parameters, printed", "mult-adds, printed")
    head = ("method", *printed, "error %, here", "edges", "parameters not zero", "mult-adds, here", "seconds")
    yield from table(head, (_row(name, outcomes) for name, outcomes in found.items()))
    yield "\n![Edges that are not zero](ds-wirings.svg)\n"
    yield "## Edges of the paper's networks\n"
    yield "What the DNW of the table keeps, by stage of the network:\n"
    kept = stage_edges(0.225)
    rows = [[str(n), f"{math.floor(each):,}"] for n, each in enumerate(kept, 1)]
    yield from table(("stage", "edges"), [*rows, ["all, before each is rounded down", f"{math.floor(sum(kept)):,}"]])
    yield ""
    yield from bounds(claims(found))


def _row(name: str, outcomes: list[Outcome]) -> list[str]:
    printed = PRINTED.get(name, ("",) * 4)
    counts = (f"{mean(getattr(o, what) for o in outcomes):,.0f}" for what in ("edges", "nonzero", "mult_adds"))
    return [name, *printed, cell((o.error for o in outcomes), 2), *counts, f"{mean(o.seconds for o in outcomes):.0f}"]


def claims(found: Mapping[str, list[Outcome]]) -> Iterator[Bound]:
    """What the paper finds, in the numbers of this run."""
    errors = {name: mean(o.error for o in outcomes) for name, outcomes in found.items()}
    for better, worse in (
        ("DNW", "dense, narrow"),
        ("DS", "PG l1"),
        ("DS", "PG l1,2"),
        ("DS rectified", "DS"),
        ("DS rectified", "DNW"),
    ):
        shown = f"{errors[better]:.2f} and {errors[worse]:.2f}"
        yield Bound(f"error of {better} below that of {worse}", shown, errors[better] < errors[worse])


NOTES = """In the paper each λ is chosen by trial so that the multiply-adds match; here every method keeps the
same number of edges, and λ follows (see [wiring](../retraining.md#wiring)). "Dense, narrow" has about as many edges,
all between fewer channels. SGD with momentum 0.9, weight decay 1e-4 (none on thresholds and what is behind them),
no clipping, a cosine. The epoch is chosen on a tenth of the training samples, errors are those
of the test samples. Multiply-adds count products with weights that are not zero: a runtime that knows no zeros does
them all. Seconds are those of one thread on a machine that did other work as well.
"""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="images, as for compress: npz:PATH, digits, ...")
    made.add_argument("--epochs", type=int, default=160)
    made.add_argument("--samples", type=int, default=50_000, help="training samples, the first so many")
    made.add_argument("--test", type=int, default=10_000, help="test samples, the first so many")
    made.add_argument("--channels", type=int, default=32, help="of the first stage; the second has twice as many")
    made.add_argument("--keep", type=float, default=0.15, help="fraction of the edges that stays")
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--lr", type=float, default=0.1)
    made.add_argument("--augment", default="auto", help="as for compress finetune; none is faster")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=Path("docs/results"))
    given = made.parse_args()
    start(given)
    data = load_data(given.data)
    if data.train is None:
        raise SystemExit(f"{given.data} has no training part")
    train, test = (
        Split(s.inputs[:n], s.targets[:n]) for s, n in ((data.train, given.samples), (data.test, given.test))
    )
    found: dict[str, list[Outcome]] = {}
    for name in ("dense", "dense, narrow", *METHODS):
        found[name] = [run(name, given, train, test, data.classes, seed) for seed in range(given.seeds)]
        print(name, *_row(name, found[name])[5:], flush=True)
    lines = [
        Series(n, [float(i) for i in range(len(o[0].by_epoch))], o[0].by_epoch)
        for n, o in found.items()
        if n in METHODS
    ]
    figure = Figure("ds-wirings", "Edges that are not zero", "epoch", "edges", tuple(lines), log_y=True)
    write(given.results, "ds_wirings", page(given, found, len(train), len(test)), [figure])


if __name__ == "__main__":
    main()
