"""The widths of a network for a page: bars by layer, folded by block where there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from compress.report.sides import share
from compress.wording import plural

_OPEN = 40  # layers that stand open one by one
_BLOCKS = 24  # blocks that these are folded into, at most

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class LayerBar:
    """One layer: its width before and what was kept of it, as shares of the widest layer, and the same as a text."""

    name: str
    kind: str
    whole: str
    kept: str
    text: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Layers one after the other; ``summary`` is "" where they stand open."""

    summary: str
    rows: tuple[LayerBar, ...]


@dataclass(frozen=True)
class Column:
    """One layer in the picture of the whole network, from the bottom up."""

    name: str
    text: str
    x: str
    top: str
    whole: str
    kept_top: str
    kept: str


@dataclass(frozen=True)
class Network:
    """The layers of a report, drawn. ``columns`` are none where the rows are few enough to be seen at once."""

    sentence: str
    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    column: str  # its width
    widest: int


def network(report: Mapping[str, Any]) -> Network | None:
    """None for a report without layers."""
    layers: Sequence[Layer] = report["layers"]
    if not layers:
        return None
    widest = max(1, *(max(each["before"], each["after"]) for each in layers))
    narrower = sum(each["after"] < each["before"] for each in layers)
    sums = [sum(each[side] for each in layers) for side in ("before", "after")]
    told = f"{narrower} of {plural(len(layers), 'layer')} narrower: {sums[1]:,} of {plural(sums[0], 'output')} left."
    if len(layers) <= _OPEN:
        return Network(told, (Block("", tuple(_bar(each, widest) for each in layers)),), (), "", widest)
    columns = tuple(_column(each, index, len(layers), widest) for index, each in enumerate(layers))
    return Network(told, tuple(_blocks(layers, widest)), columns, share(0.8 / len(layers)), widest)


def _bar(layer: Layer, widest: int) -> LayerBar:
    return LayerBar(
        layer["name"],
        layer["kind"],
        share(layer["before"] / widest),
        share(layer["after"] / widest),
        _change(layer["before"], layer["after"]),
        layer["frozen"] or "",
    )


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{before:,}"
    return f"{before:,} → {after:,}" + (f" ({100 * after / before:.0f} %)" if before else "")


def _column(layer: Layer, index: int, count: int, widest: int) -> Column:
    whole, kept = layer["before"] / widest, layer["after"] / widest
    text = _change(layer["before"], layer["after"])
    place = (share(index / count), share(1 - whole), share(whole), share(1 - kept), share(kept))
    return Column(layer["name"], text, *place)


def _blocks(layers: Sequence[Layer], widest: int) -> list[Block]:
    """Neighbours whose names begin alike, by as many parts of the names as give no more than 24 blocks."""
    depth = max(1, *(len(each["name"].split(".")) for each in layers))
    while depth > 1 and len(_runs(layers, depth)) > _BLOCKS:
        depth -= 1
    found: list[Block] = []
    for name, run in _runs(layers, depth):
        rows = tuple(_bar(each, widest) for each in run)
        sums = [sum(each[side] for each in run) for side in ("before", "after")]
        if len(run) == 1:
            found.append(Block("", rows))
        else:
            found.append(Block(f"{name}: {plural(len(run), 'layer')}, {_change(*sums)} outputs", rows))
    return found


def _runs(layers: Sequence[Layer], depth: int) -> list[tuple[str, list[Layer]]]:
    """Neighbours by the first ``depth`` parts of their names."""
    grouped = groupby(layers, key=lambda each: ".".join(each["name"].split(".")[:depth]))
    return [(name, list(run)) for name, run in grouped]
