"""What every way to prune while training costs: seconds of an epoch with it and without, in turns, on one core.

    python benchmarks/retrain_speed.py [--modes dsc,standout] [--networks residual] [--rounds 3]

Prints a Markdown table. An epoch is all that happens in it: steps, validation, and what the mode does at its end.
``dsc`` is compared with the training of the network that has its short circuits, without gates (``--form gsc``), as the
network it comes from is another one. The time is that of the processor; each figure is the least of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from compress.data import Split
from compress.errors import ModelError
from compress.graph import analyse, trace
from compress.plugin import Context, Retrain
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.registry import create
from compress.retrain import start_session
from compress.training import Training

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "sample_models"), str(Path(__file__).parent / "papers")]

from architectures import residual_cnn  # noqa: E402
from mgf_networks import mgf_network  # noqa: E402

SETTINGS = Training(epochs=4, batch_size=64, patience=0)
MODES: tuple[tuple[str, dict[str, str]], ...] = (
    ("annealing", {}),
    ("annealing", {"every": "step"}),
    ("annealing", {"unit_method": "dependency"}),
    ("dsc", {}),
    ("standout", {}),
    ("standout", {"conv": "on"}),
    ("diffsparse", {}),
    ("diffsparse", {"on": "units"}),
    ("diffsparse", {"on": "blocks"}),
    ("slim", {}),
    ("proximal", {}),
    ("proximal", {"on": "filters"}),
    ("wiring", {}),
    ("wiring", {"by": "dnw"}),
    ("wiring", {"by": "proximal"}),
)


@dataclass(frozen=True)
class Network:
    """A network and how many samples make an epoch of it."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int


NETWORKS = (
    Network(
        "64-300-100-10",
        lambda: nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)),
        (64,),
        3200,
    ),
    Network(
        "784-800-800-10",
        lambda: nn.Sequential(nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 10)),
        (784,),
        1422,
    ),
    Network("residual", residual_cnn, (1, 8, 8), 640),
    Network("small CNN", lambda: mgf_network("small"), (1, 28, 28), 640),
)


@dataclass
class Clock(Hook):
    """The processor's time at the end of every epoch."""

    times: list[float] = field(default_factory=list)

    def after_epoch(self, loop: Loop) -> None:
        self.times.append(time.process_time())

    @property
    def epoch(self) -> float:
        """Seconds of an epoch, the mean."""
        return sum(b - a for a, b in pairwise(self.times)) / (len(self.times) - 1)


def epoch(context: Context, data: Split, method: Retrain | None) -> float:
    """Seconds of an epoch with a method, or of plain training."""
    clock = Clock()
    if method is None:
        finetune(context.copy(), data, SETTINGS, hooks=[clock])
    else:
        session = start_session(method, context)
        finetune(session.network, data, SETTINGS, hooks=[InSession(session), clock])
    return clock.epoch


def compared(network: Network, mode: str, options: dict[str, str], rounds: int) -> tuple[float, float]:
    """Seconds of an epoch without the mode and with it."""
    torch.manual_seed(0)
    data = Split(torch.rand(network.samples, *network.shape), torch.randint(10, (network.samples,)))
    method = create(mode, options)[1]
    plain = create(mode, {**options, "form": "gsc"})[1] if mode == "dsc" else None
    granularity = "weight" if mode == "wiring" else "unit"
    program = trace(network.make().eval(), (data.inputs[:2],))
    context = Context(analyse(program), has_budget=False, granularity=granularity, data=_Data(data))
    times = [(epoch(context, data, plain), epoch(context, data, method)) for _ in range(rounds)]
    return min(t[0] for t in times), min(t[1] for t in times)


@dataclass(frozen=True)
class _Data:
    """What a context asks of data."""

    train: Split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", help="with commas between; all if left out")
    parser.add_argument("--networks", help="with commas between; all if left out")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| mode | network | epoch without | with it | |\n| :--- | :--- | ---: | ---: | ---: |")
    for mode, words in MODES:
        if options.modes and mode not in options.modes.split(","):
            continue
        for network in NETWORKS:
            if options.networks and network.name not in options.networks.split(","):
                continue
            try:
                plain, own = compared(network, mode, words, options.rounds)
            except ModelError:  # nothing to prune in this one
                continue
            shown = " ".join([mode, *(f"--{k.replace('_', '-')} {v}".removesuffix(" on") for k, v in words.items())])
            print(f"| {shown} | {network.name} | {plain:.2f} s | {own:.2f} s | {own / plain:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
