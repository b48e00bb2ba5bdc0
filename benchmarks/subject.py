"""What a benchmark of methods is about: the options that name a network and data, and both of them open."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from compress.checkpoint.read import load_model
from compress.data import Data, Split, load_data
from compress.graph import Coupling, analyse, trace


def parser(text: str | None, ratios: tuple[float, ...], samples: str, threads: int) -> argparse.ArgumentParser:
    """The options of all such benchmarks.

    Args:
        text: The help of the script.
        ratios, threads: Defaults.
        samples: What training samples are for.
    """
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkpoint", type=Path)
    made.add_argument("--arch", help="FILE.py:FUNCTION or MODULE:FUNCTION that makes the network")
    made.add_argument("--data", required=True, help="as for `compress prune --data`")
    made.add_argument("--mean", type=numbers)
    made.add_argument("--std", type=numbers)
    made.add_argument("--only", action="append", default=[])
    made.add_argument("--exclude", action="append", default=[])
    made.add_argument("--ratios", type=numbers, default=ratios)
    made.add_argument("--samples", type=int, default=1000, help=f"training samples for {samples}")
    made.add_argument("--test", type=int, help="test samples; all if left out")
    made.add_argument("--threads", type=int, default=threads)
    return made


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between."""
    return tuple(float(part) for part in text.split(",") if part)


def opened(options: argparse.Namespace) -> tuple[Coupling, Data]:
    """The network under analysis, and its data with as many test samples as were asked for."""
    torch.set_num_threads(options.threads)
    data = load_data(options.data, mean=options.mean, std=options.std)
    if data.train is None:
        raise SystemExit("the data has no training part")
    test = Split(data.test.inputs[: options.test], data.test.targets[: options.test])
    module = load_model(options.checkpoint, arch=options.arch, input_shape=(data.input_shape,)).module
    coupling = analyse(trace(module, (torch.randn(2, *data.input_shape),)))
    return coupling, Data(data.name, data.train, test, data.classes)


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
