"""What a network keeps of its accuracy and how much faster it gets: sliced, refitted, and trained again.

    python benchmarks/recovery.py CHECKPOINT --arch benchmarks/cifar_resnet.py:resnet20 --data npz:cifar10.npz \
        --mean .485,.456,.406 --std .229,.224,.225 --only '*.conv1' --exclude conv1 --epochs 1,3,10

A row for each method, share of units that goes and rounding of widths. Accuracy is of all test samples: sliced alone,
with the statistics of batch norms estimated again, with layers refitted one by one, with layers refitted together, and
after each number of epochs of training with the original as teacher, every one of them from the refitted network with a
learning-rate schedule of its own. Latency is that of ONNX Runtime, batch 1, one thread, in turns with the original;
"realised" is the speed-up over the ratio of the MACs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from subject import opened, parser, row
from torch import fx

from compress.budget import Allocation, Budget, multiple
from compress.data import Data, Split
from compress.evaluate import evaluate
from compress.graph import Coupling, macs, parameters, slice_verified
from compress.latency.sessions import exported
from compress.measure import latency
from compress.plugin import Context, make_plan
from compress.recover import compensate, finetune
from compress.registry import create
from compress.training import Training

KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("+ norms", {"layers": False}),
    ("+ layers", {"together": False}),
    ("+ together", {}),
)


@dataclass(frozen=True)
class Setting:
    """What is common to all rows."""

    coupling: Coupling
    data: Data
    training: Training
    epochs: tuple[int, ...]
    options: argparse.Namespace


def results(setting: Setting, method: str, ratio: float, rounding: str) -> list[str]:
    """The cells of one row of the table."""
    options, coupling = setting.options, setting.coupling
    allocation = Allocation(round_to=multiple(_rounding(rounding), "onnxruntime-cpu"))
    context = Context(
        coupling, Budget("ratio", ratio), only=options.only, exclude=options.exclude, seed=options.seed,
        data=setting.data, allocation=allocation,
    )  # fmt: skip
    start = time.perf_counter()
    found = slice_verified(coupling, make_plan(create(method, {})[1], context).removed)
    choice = time.perf_counter() - start
    cells = [method, f"{100 * ratio:.0f} %", rounding, _accuracy(found.module, setting.data)]
    inputs, _ = context.samples(options.samples)
    module = found.module
    for _, kind in KINDS:
        start = time.perf_counter()
        module = compensate(coupling, found.alive, found.module, inputs, seed=options.seed, **kind).module
        refit = time.perf_counter() - start
        cells.append(_accuracy(module, setting.data))
    cells += trained(setting, module)
    share = macs(coupling) / macs(coupling, found.alive)
    cells += [f"{parameters(coupling, found.alive):,}", f"{macs(coupling, found.alive) / 1e6:.2f} M"]
    return [*cells, *speed(coupling, module, share), f"{choice:.1f}", f"{refit:.1f}"]


def trained(setting: Setting, module: fx.GraphModule) -> Iterator[str]:
    """The accuracy after each number of epochs."""
    data, part = setting.data, setting.options.train
    if data.train is None:
        raise SystemExit("the data has no training part")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(setting.options.seed))[:part]
    train = Split(data.train.inputs[order], data.train.targets[order])
    for epochs in setting.epochs:
        done = finetune(
            module, train, replace(setting.training, epochs=epochs), seed=setting.options.seed,
            device=setting.options.device, teacher=setting.coupling.program.module,
        )  # fmt: skip
        yield f"{_accuracy(done.module, data)} (epoch {done.best})"


def speed(coupling: Coupling, module: fx.GraphModule, share: float) -> list[str]:
    """Milliseconds in ONNX Runtime, speed-up, and speed-up over the ratio of the MACs."""
    inputs = tuple(x[:1] for x in coupling.program.inputs)
    with exported(coupling.program.module, inputs) as dense, exported(module, inputs) as small:
        runs = {"dense": dense.runner(1), "small": small.runner(1)}
        times = latency(runs, min_runs=200, min_seconds=3.0, warmup=20)
    ratio = times["dense"].p50 / times["small"].p50
    return [f"{1e3 * times['small'].p50:.2f} of {1e3 * times['dense'].p50:.2f}", f"{ratio:.2f}", f"{ratio / share:.2f}"]


def _accuracy(module: fx.GraphModule, data: Data) -> str:
    return f"{100 * evaluate(module, data.test).accuracy:.2f}"


def _rounding(text: str) -> Any:
    return 1 if text == "none" else "auto" if text == "auto" else int(text)


def main() -> None:
    options = _options()
    torch.manual_seed(options.seed)
    coupling, data = opened(options)
    epochs = tuple(int(n) for n in options.epochs.split(",") if n)
    training = Training(batch_size=options.batch_size, lr=options.lr, precision=options.precision)
    setting = Setting(coupling, data, training, epochs, options)
    print(
        f"dense {_accuracy(coupling.program.module, data)} %, {parameters(coupling):,} parameters, "
        f"{macs(coupling) / 1e6:.2f} M MACs; {len(data.test):,} test samples, {options.samples:,} samples for choice "
        f"and refit, {options.train or 'all'} for training, seed {options.seed}, {options.threads} threads\n"
    )
    head = ["method", "gone", "widths", "sliced", *(name for name, _ in KINDS)]
    head += [f"+ {n} epoch{'s' if n > 1 else ''}" for n in epochs]
    head += ["params", "MACs", "ms", "speed-up", "realised", "choice s", "refit s"]
    print(row(head) + "\n" + row([":---", *("---:" for _ in head[1:])]))
    for method in options.methods.split(","):
        for ratio in options.ratios:
            for rounding in options.round_to.split(","):
                print(row(results(setting, method, ratio, rounding)), flush=True)


def _options() -> argparse.Namespace:
    made = parser(__doc__, (0.3, 0.5, 0.7), "choice and refit", 2)
    made.add_argument("--methods", default="reconstruct")
    made.add_argument("--round-to", default="none,auto", help="none, auto or numbers, with commas between")
    made.add_argument("--epochs", default="1,3,10", help="numbers of epochs; empty for no training")
    made.add_argument("--train", type=int, help="training samples; all if left out")
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--lr", type=float, default=0.05)
    made.add_argument("--precision", default="no", help="no, bf16 or fp16")
    made.add_argument("--device", default="cpu", help="where networks are trained")
    made.add_argument("--seed", type=int, default=0)
    return made.parse_args()


if __name__ == "__main__":
    main()
