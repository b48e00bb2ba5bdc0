"""Which widths run fast on this CPU: a chain of 3x3 convolutions in ONNX Runtime, on one thread.

Fewer channels are fewer multiply-accumulates, but kernels work on blocks of channels, and a width that fills no whole
blocks can cost as much as the next that does, or more. ``realised`` is the speed-up over 64 channels divided by the
factor by which the multiply-accumulates shrank: 1 where all that was saved is saved in time as well.

    python benchmarks/width_speed.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn

from compress.counting import count_macs
from compress.latency.networks import running
from compress.measure import latency

WIDTHS = (64, 63, 62, 60, 56, 52, 50, 49, 48, 47, 46, 45, 44, 40, 36, 34, 33, 32)


def chain(width: int, layers: int) -> nn.Module:
    """Convolutions with a ReLU behind each; all inputs and outputs are as wide."""
    made = [(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*(part for pair in made for part in pair)).eval()


def rows(widths: Sequence[int], layers: int, size: int) -> list[tuple[int, float, float, float, float]]:
    """Per width: milliseconds, multiply-accumulates and time relative to the first, and what was realised."""
    with ExitStack() as stack:
        runs, macs = {}, {}
        for width in widths:
            inputs = (torch.randn(1, width, size, size),)
            network = chain(width, layers)
            macs[width] = count_macs(network, inputs).total
            runs[width] = stack.enter_context(running(network, inputs, "onnxruntime-cpu"))
        times = latency({str(width): run for width, run in runs.items()}, min_runs=40)
    seconds = {width: times[str(width)].p50 for width in widths}
    first = widths[0]
    found = []
    for width in widths:
        share, faster = macs[width] / macs[first], seconds[first] / seconds[width]
        found.append((width, 1e3 * seconds[width], share, faster, faster * share))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--widths", type=int, nargs="+", default=WIDTHS, help="the first is what others are compared with"
    )
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--size", type=int, default=56, help="height and width of the images")
    asked = parser.parse_args()
    print("| width | ms | MACs | speed-up | realised |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for width, milliseconds, share, faster, realised in rows(asked.widths, asked.layers, asked.size):
        print(f"| {width} | {milliseconds:.2f} | {100 * share:.0f} % | {faster:.2f}x | {realised:.2f} |")


if __name__ == "__main__":
    main()
