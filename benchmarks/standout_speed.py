"""What the gates of `standout` cost in training: processor time of a step with them over that without, on one core.

python benchmarks/standout_speed.py
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn

from compress.data import Split
from compress.graph import analyse, trace
from compress.plugin import Context
from compress.recover import Hook, InSession, finetune
from compress.recover.loop import Loop
from compress.training import Training
from compress_plugins.standout import Standout

sys.path.append(str(Path(__file__).parent / "papers"))
from mgf_networks import mgf_network

SETTINGS = Training(epochs=2, batch_size=64, patience=0)


class Clock(Hook):
    """The processor's time after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def after_step(self, loop: Loop) -> None:
        self.times.append(time.process_time())

    @property
    def step(self) -> float:
        """Milliseconds of a step, the median."""
        return 1e3 * median(b - a for a, b in pairwise(self.times))


def main() -> None:
    """Prints a line for each network, and one more with --conv where it has convolutions."""
    torch.set_num_threads(1)
    plain = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    wide = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    for name, module, shape, count in (
        ("64-300-100-10", plain, (64,), 6400),
        ("784-512-10", wide, (784,), 6400),
        ("small CNN", mgf_network("small"), (1, 28, 28), 960),
    ):
        data = Split(torch.randn(count, *shape), torch.randint(10, (count,)))
        context = Context(analyse(trace(module.eval(), (data.inputs[:2],))), has_budget=False)
        for conv in (False, True)[: 1 + (len(shape) > 1)]:
            clock, gated = Clock(), Clock()
            finetune(context.module, data, SETTINGS, hooks=[clock])
            session = Standout(period=2, conv=conv).start(context)
            finetune(session.network, data, SETTINGS, hooks=[InSession(session), gated])
            ratio = gated.step / clock.step
            print(
                f"{name}{' --conv' if conv else ''}: {clock.step:.2f} ms, {gated.step:.2f} ms with gates, {ratio:.2f}x"
            )


if __name__ == "__main__":
    main()
