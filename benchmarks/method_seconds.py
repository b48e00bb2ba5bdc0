"""How long every one-shot method takes to choose: on ResNet-50 of torchvision with random weights.

    python benchmarks/method_seconds.py [--model resnet50] [--samples 64] [--size 64] [--methods magnitude,taylor]

After tracing: the groups of units are found once for all methods ("analysis"); then each row has the seconds of the
plan for ``--ratio 0.5`` and for ``--macs 0.5``, with every check of the budget that `compress prune` makes, and those
of the slice. They are seconds of CPU time, on one thread unless --threads says otherwise. Inputs are 224 x 224; for
methods that look at data they are random samples of 64 x 64 with random labels, as a network of random weights learns
nothing from real ones. Verification takes as long for every method and is left out. Weights at zero instead of units
have a row of their own where the method can.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import warnings
from collections.abc import Iterator

import torch
import torchvision

from compress.budget import Budget
from compress.data import Data, Split
from compress.errors import ModelError
from compress.graph import Coupling, analyse, slice_graph, trace
from compress.pipeline.planning import planned
from compress.plugin import Context, granularities
from compress.progress import Silent
from compress.registry import Method, create, methods

NEEDS = {"activation", "reconstruct", "taylor", "fsa"}  # samples


def rows(coupling: Coupling, data: Data, method: Method) -> Iterator[list[str]]:
    """One row for each granularity."""
    instance = create(method.name, {"keep": "0.5"} if method.name == "fsa" else {})[1]
    for granularity in granularities(instance):
        cells = [method.name, granularity]
        sliced = ""
        for kind in ("ratio", "macs"):
            if (method.kind == "pruner" or granularity == "weight") and kind == "macs":
                cells.append("")
                continue
            context = Context(coupling, Budget(kind, 0.5), granularity, data=data if method.name in NEEDS else None)
            if method.kind == "pruner":
                context = dataclasses.replace(context, has_budget=False)
            start = time.process_time()
            try:
                plan = planned(instance, method.kind, context, 1, None, Silent())
            except ModelError as error:
                cells.append(str(error))
                continue
            cells.append(f"{time.process_time() - start:.1f}")
            if granularity == "unit" and kind == "ratio":
                start = time.process_time()
                slice_graph(coupling, coupling.alive(plan.removed))
                sliced = f"{time.process_time() - start:.1f}"
        yield [*cells, sliced]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="of torchvision")
    parser.add_argument("--methods", help="with commas between; all one-shot methods if left out")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="of the samples' sides")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module = torchvision.models.get_model(options.model, weights=None).eval()
    program = trace(module, (torch.randn(2, 3, 224, 224),))
    start = time.process_time()
    coupling = analyse(program)
    print(f"analysis {time.process_time() - start:.1f} s, {options.threads} threads\n")
    x = torch.randn(options.samples, 3, options.size, options.size)
    small = analyse(trace(module, (x[:2],)))
    split = Split(x, torch.randint(10, (len(x),)))
    data = Data("random", split, split, 10)
    print("| method | granularity | ratio 0.5 | MACs 0.5 | slice |\n| :--- | :--- | ---: | ---: | ---: |")
    for method in methods():
        if method.kind != "retrain" and (options.methods is None or method.name in options.methods.split(",")):
            for row in rows(small if method.name in NEEDS else coupling, data, method):
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
