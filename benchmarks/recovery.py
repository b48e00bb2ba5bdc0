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
from pathlib import Path
from typing import Any

import torch
from torch import fx

from compress.budget import Allocation, Budget, multiple
from compress.checkpoint.read import load_model
from compress.data import Data, Split, load_data
from compress.evaluate import evaluate
from compress.graph import Coupling, analyse, macs, parameters, slice_verified, trace
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


def row(setting: Setting, method: str, ratio: float, rounding: str) -> list[str]:
    """One row of the table."""
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
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = load_data(options.data, mean=options.mean, std=options.std)
    if options.test:
        test = Split(data.test.inputs[: options.test], data.test.targets[: options.test])
        data = Data(data.name, data.train, test, data.classes)
    module = load_model(options.checkpoint, arch=options.arch, input_shape=(data.input_shape,)).module
    coupling = analyse(trace(module, (torch.randn(2, *data.input_shape),)))
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
    print(_line(head) + "\n" + _line([":---", *("---:" for _ in head[1:])]))
    for method in options.methods.split(","):
        for ratio in options.ratios:
            for rounding in options.round_to.split(","):
                print(_line(row(setting, method, ratio, rounding)), flush=True)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", help="FILE.py:FUNCTION or MODULE:FUNCTION that makes the network")
    parser.add_argument("--data", required=True, help="as for `compress prune --data`")
    parser.add_argument("--mean", type=_numbers)
    parser.add_argument("--std", type=_numbers)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--methods", default="reconstruct")
    parser.add_argument("--ratios", type=_numbers, default=(0.3, 0.5, 0.7))
    parser.add_argument("--round-to", default="none,auto", help="none, auto or numbers, with commas between")
    parser.add_argument("--epochs", default="1,3,10", help="numbers of epochs; empty for no training")
    parser.add_argument("--train", type=int, help="training samples; all if left out")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--precision", default="no", help="no, bf16 or fp16")
    parser.add_argument("--device", default="cpu", help="where networks are trained")
    parser.add_argument("--samples", type=int, default=1000, help="training samples for choice and refit")
    parser.add_argument("--test", type=int, help="test samples; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    main()
