"""Pictures of a training with short circuits: gates of the input, transfer from where to where, and over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compress.plugin import Context, Figure, HeatMap, Panel, Series
from compress_plugins.dsc_layers import ShortCircuit
from compress_plugins.dsc_transfer import Blocks

Curve = Sequence[tuple[int, float, float]]  # epoch, transfer rate, accuracy on the validation samples


def figures(
    context: Context, modules: Mapping[str, ShortCircuit], blocks: Blocks, curve: Curve
) -> Iterator[Figure | HeatMap]:
    """All of them.

    Args:
        context: The network as it came.
        modules: The converted layers of the trained network.
        blocks: Transfer by source and layer, sources by their names.
        curve: Over time.
    """
    yield from _input_gates(context, modules)
    yield _transfer(blocks)
    if not curve:
        return
    epochs = [float(epoch) for epoch, *_ in curve]
    series = tuple(
        Series(label, epochs, [float(each[i]) for each in curve]) for i, label in ((1, "transfer"), (2, "accuracy"))
    )
    yield Figure("dsc-transfer-over-time", "Transfer and accuracy", "epoch", "mean gate, share right", series)


def _input_gates(context: Context, modules: Mapping[str, ShortCircuit]) -> Iterator[HeatMap]:
    """sigma(C) of every input feature in each layer that reads them, and their mean; grey where it is not read."""
    shape = tuple(context.coupling.program.inputs[0].shape[1:])
    panels, gates = [], []
    for name, module in modules.items():
        reading = module.reading
        if reading.sizes[0] == math.prod(shape) and reading.sources[0] == _first(modules) and not reading.spatial:
            opened = module.open().detach().cpu()[: reading.sizes[0]]
            gates.append(opened)
            panels.append(Panel(f"layer {name}", _rows(opened.where(opened != 0, torch.nan), shape)))
    if panels:
        panels.append(Panel("mean", _rows(torch.stack(gates).mean(0), shape)))
        yield HeatMap("dsc-input-gates", "Gates of the input", tuple(panels), scale="gate", low=0.0, high=1.0)


def _first(modules: Mapping[str, ShortCircuit]) -> str:
    return next(iter(modules.values())).reading.sources[0]


def _rows(values: Tensor, shape: Sequence[int]) -> list[list[float]]:
    """Of the shape of an image, channels averaged; flat ones in a square, where their number is one, or in one row."""
    side = math.isqrt(len(values))
    if len(shape) == 3:
        image = values.reshape(tuple(shape)).nanmean(0)
    elif len(shape) == 2:
        image = values.reshape(tuple(shape))
    else:
        image = values.reshape(side if side**2 == len(values) else 1, -1)
    return [[float(v) for v in row] for row in image]


def _transfer(blocks: Blocks) -> HeatMap:
    sources = list(dict.fromkeys(source for source, _ in blocks))
    layers = list(dict.fromkeys(layer for _, layer in blocks))
    rows = [[blocks.get((source, layer), math.nan) for layer in layers] for source in sources]
    panel = Panel("", rows, sources, layers)
    return HeatMap(
        "dsc-transfer", "Transfer rate", (panel,), "to layer", "from", "mean gate", low=0.0, high=1.0, numbers=True
    )
