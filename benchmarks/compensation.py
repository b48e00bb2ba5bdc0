"""What a network keeps of its accuracy without training: pruned only, batch norms estimated again, layers refitted.

    python benchmarks/compensation.py CHECKPOINT --arch benchmarks/cifar_resnet.py:resnet20 --data npz:cifar10.npz \
        --mean .485,.456,.406 --std .229,.224,.225 --only '*.conv1' --exclude conv1

One line for each method and share of units that goes, with the seconds of the choice and of the refit.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from compress.budget import Budget
from compress.checkpoint.read import load_model
from compress.data import Data, Split, load_data
from compress.evaluate import evaluate
from compress.graph import Coupling, analyse, slice_verified, trace
from compress.plugin import Context, make_plan
from compress.recover import compensate
from compress.registry import create


def row(coupling: Coupling, data: Data, method: str, ratio: float, options: argparse.Namespace) -> str:
    """Accuracy after each kind of compensation, as one line of the table."""
    context = Context(
        coupling, Budget("ratio", ratio), only=options.only, exclude=options.exclude, seed=options.seed, data=data
    )
    start = time.perf_counter()
    found = slice_verified(coupling, make_plan(create(method, {})[1], context).removed)
    chosen = time.perf_counter() - start
    inputs, _ = context.samples(options.samples)
    cells = [f"{100 * evaluate(found.module, data.test).accuracy:6.2f}"]
    seconds = [chosen]
    kinds: tuple[dict[str, Any], ...] = ({"layers": False}, {"together": False}, {})
    for kind in kinds:
        start = time.perf_counter()
        done = compensate(coupling, found.alive, found.module, inputs, seed=options.seed, **kind)
        seconds.append(time.perf_counter() - start)
        cells.append(f"{100 * evaluate(done.module, data.test).accuracy:6.2f}")
    times = " | ".join(f"{s:5.1f}" for s in (seconds[0], seconds[2], seconds[3]))
    return f"| {method:<11} | {100 * ratio:3.0f} % | {' | '.join(cells)} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", help="FILE.py:FUNCTION or MODULE:FUNCTION that makes the network")
    parser.add_argument("--data", required=True, help="as for `compress prune --data`")
    parser.add_argument("--mean", type=_numbers)
    parser.add_argument("--std", type=_numbers)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--methods", default="dependency,reconstruct")
    parser.add_argument("--ratios", type=_numbers, default=(0.3, 0.5, 0.7))
    parser.add_argument("--samples", type=int, default=1000, help="training samples for choice and refit")
    parser.add_argument("--test", type=int, help="test samples; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = load_data(options.data, mean=options.mean, std=options.std)
    if options.test:
        data = Data(data.name, data.train, Split(*(t[: options.test] for t in _parts(data.test))), data.classes)
    module = load_model(options.checkpoint, arch=options.arch, input_shape=(data.input_shape,)).module
    coupling = analyse(trace(module, (torch.randn(2, *data.input_shape),)))
    dense = 100 * evaluate(module, data.test).accuracy
    print(f"dense {dense:.2f} %, {len(data.test):,} test samples, {options.samples:,} training samples, ", end="")
    print(f"seed {options.seed}, {options.threads} threads; accuracy in %, seconds")
    print("| method      | gone  | pruned | + norms | + layers | + together | choice s | layers s | all s |")
    print("| :---------- | ----: | -----: | ------: | -------: | ---------: | -------: | -------: | ----: |")
    for method in options.methods.split(","):
        for ratio in options.ratios:
            print(row(coupling, data, method, ratio, options), flush=True)


def _parts(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.inputs, split.targets


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    main()
