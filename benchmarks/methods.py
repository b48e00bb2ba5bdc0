"""What a network keeps of its accuracy by each one-shot method, against five random choices; prints Markdown tables.

    python benchmarks/methods.py CHECKPOINT --arch benchmarks/cifar_resnet.py:resnet20 --data npz:cifar10.npz \
        --mean .485,.456,.406 --std .229,.224,.225 [--only '*.conv1' --exclude conv1] [--test 2000]

A row for each method and share that goes: the accuracy as it was cut ("cut"), with the statistics of batch norms
estimated again ("norms"), and after the refit that `compress prune` does by itself ("refit"), with what is left and
the seconds of the choice, after tracing. Methods that decide by themselves how much goes stand beside random choices
that leave as many multiply-accumulates, or as many weights. Random rows are means and standard deviations of --seeds
runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from subject import opened, parser, row
from torch import Tensor, fx

from compress.budget import Budget
from compress.data import Data
from compress.errors import ModelError
from compress.evaluate import evaluate
from compress.graph import Coupling, macs, parameters, slice_verified
from compress.pipeline.slicing import slice_weights
from compress.plan import Plan
from compress.plugin import Context, granularities, make_plan
from compress.recover import compensate
from compress.registry import create

SCORED = ("magnitude", "dependency", "slimming", "taylor", "activation", "reconstruct")
DECIDING: Mapping[str, Mapping[str, str]] = {"tetris": {}, "channel": {}, "fsa": {"keep": "0.5"}}
HEAD = ("method", "gone", "cut", "norms", "refit", "parameters", "MACs", "seconds")


@dataclass(frozen=True)
class Setting:
    """What is common to all rows."""

    coupling: Coupling
    data: Data
    inputs: Tensor  # of the refit
    options: argparse.Namespace


@dataclass(frozen=True)
class Result:
    """One run: accuracies in percent, what is left, and the seconds of the choice."""

    accuracies: tuple[float, float, float]
    parameters: int  # that are not zero
    macs: float
    zeros: float  # the share of the layers' weights that is masked
    seconds: float


def run(setting: Setting, name: str, options: Mapping[str, str], budget: Budget | None, seed: int) -> Result:
    """One method on the network; without a budget it decides by itself how much goes."""
    given, coupling = setting.options, setting.coupling
    context = Context(
        coupling, budget or Budget(), given.granularity, only=given.only, exclude=given.exclude, seed=seed,
        data=setting.data, has_budget=budget is not None,
    )  # fmt: skip
    method = create(name, options)[1]
    start = time.process_time()
    plan = make_plan(method, context)
    seconds = time.process_time() - start
    module, alive = _cut(coupling, plan)
    masked = bool(plan.masks)
    together = getattr(method, "joint_refit", False)
    accuracies = [_accuracy(module, setting.data)]
    for kind in ({"layers": False}, {"together": together}):
        done = compensate(coupling, alive, module, setting.inputs, keep_zeros=masked, **kind)
        accuracies.append(_accuracy(done.module, setting.data))
    total = sum(w.numel() for w in context.layers().values())
    zeros = sum(int((~m & (context.weight(n) != 0)).sum()) for n, m in plan.masks.items()) / total
    left = sum(int((p != 0).sum()) for p in module.parameters())
    return Result((accuracies[0], accuracies[1], accuracies[2]), left, macs(coupling, alive), zeros, seconds)


def _cut(coupling: Coupling, plan: Plan) -> tuple[fx.GraphModule, Any]:
    """The network of a plan, and by label what stays."""
    if plan.masks:
        masked = slice_weights(coupling, plan)
        return masked.module, masked.alive
    found = slice_verified(coupling, plan.removed)
    return found.module, found.alive


def _accuracy(module: fx.GraphModule, data: Data) -> float:
    return 100 * evaluate(module, data.test).accuracy


def line(name: str, gone: str, results: Sequence[Result]) -> str:
    """A row; of several runs mean and standard deviation."""

    def spread(values: Sequence[float]) -> str:
        mean = statistics.fmean(values)
        return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {statistics.stdev(values):.1f}"

    cells = [name, gone, *(spread([r.accuracies[i] for r in results]) for i in range(3))]
    cells += [f"{statistics.fmean(r.parameters for r in results) / 1e3:.1f} k"]
    cells += [f"{statistics.fmean(r.macs for r in results) / 1e6:.2f} M"]
    return row([*cells, f"{statistics.fmean(r.seconds for r in results):.1f}"])


def scored(setting: Setting, ratio: float) -> None:
    """Random and every criterion, at one share."""
    print(line("random", f"{ratio:.0%}", _random(setting, Budget("ratio", ratio))), flush=True)
    for name in SCORED:
        if setting.options.granularity not in granularities(create(name, {})[1]):
            continue
        found = _attempt(setting, name, {}, Budget("ratio", ratio), name)
        if found is not None:
            print(line(name, f"{ratio:.0%}", [found]), flush=True)


def deciding(setting: Setting) -> None:
    """Methods that say themselves how much goes, each before the random choice that leaves as much."""
    weights = setting.options.granularity == "weight"
    for name in filter(None, setting.options.deciding.split(",")):
        options = DECIDING[name]
        words = " ".join([name, *(f"--{key} {value}" for key, value in options.items())])
        found = _attempt(setting, name, options, None, words)
        if found is None:
            continue
        gone = found.zeros if weights else 1 - found.macs / macs(setting.coupling)
        text = f"{gone:.0%} of weights" if weights else f"{gone:.0%} of MACs"
        print(line(words, text, [found]), flush=True)
        budget = Budget("ratio", gone) if weights else Budget("macs", found.macs)
        print(line("random, as much", text, _random(setting, budget)), flush=True)


def _attempt(
    setting: Setting, name: str, options: Mapping[str, str], budget: Budget | None, words: str
) -> Result | None:
    """A run, or a row that says why the method cannot do anything with this network."""
    try:
        return run(setting, name, options, budget, 0)
    except ModelError as error:
        print(row([words, str(error), *[""] * 6]), flush=True)
        return None


def _random(setting: Setting, budget: Budget) -> list[Result]:
    return [run(setting, "random", {}, budget, seed) for seed in range(setting.options.seeds)]


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    coupling, data = opened(options)
    inputs, _ = Context(coupling, data=data).samples(options.samples)
    setting = Setting(coupling, data, inputs, options)
    print(
        f"dense {_accuracy(coupling.program.module, data):.1f} %, {parameters(coupling) / 1e3:.1f} k parameters, "
        f"{macs(coupling) / 1e6:.2f} M MACs; {len(data.test):,} test samples, {len(inputs):,} for the refit, "
        f"{options.threads} threads\n\n{row(HEAD)}\n{row([':---', ':---', *['---:'] * 6])}"
    )
    for ratio in options.ratios:
        scored(setting, ratio)
    deciding(setting)


def _options() -> argparse.Namespace:
    made = parser(__doc__, (0.3, 0.5), "the refit", 1)
    made.add_argument("--granularity", choices=("unit", "weight"), default="unit")
    made.add_argument("--deciding", default=",".join(DECIDING), help="methods that decide; empty for none")
    made.add_argument("--seeds", type=int, default=5, help="of random choices")
    return made.parse_args()


if __name__ == "__main__":
    main()
