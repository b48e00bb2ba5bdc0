"""Why a class stays: the operation that first demanded it, not the last one that noticed.

A pin names the operation at which it was met. Two kinds of pins name no cause by themselves: classes pinned by
consequence (a head whose features are pinned, a row that has to stay as long as a pinned one), and dims that met a
tensor which had lost its labels further up. Both are followed to where they come from.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from torch import fx

from compress.graph.calls import op_name
from compress.graph.groups import Coupling
from compress.graph.labels import Pin
from compress.graph.operands import LAYERS
from compress.graph.trace import owner

_MET = "meets a tensor"
_EVERYWHERE = ("kernel position of a convolution", "rows are looked up by the data")


def causes(coupling: Coupling) -> dict[int, Pin]:
    """For every pinned class the pin that is the reason; absent where none is known."""
    pins = coupling.flow.relations.pins
    numbers = _followed(coupling, pins)
    sources = _sources(coupling, pins, {int(n) for n in np.unique(numbers) if n >= 0})
    return {int(cls): sources[int(numbers[cls])] for cls in np.flatnonzero(numbers >= 0)}


def _followed(coupling: Coupling, pins: list[Pin]) -> NDArray[np.int64]:
    """By class the number of a pin: its own, or that of the class whose consequence it is; -1 without any."""
    classes = coupling.classes
    number = np.full(len(classes.pinned), -1, dtype=np.int64)
    for i in range(len(pins) - 1, -1, -1):
        number[classes.of_label[pins[i].labels]] = i
    rows = [[classes.of_label[array] for array in d] for d in coupling.flow.relations.definitions]
    tied = [classes.of_label[balance] for balance in coupling.flow.relations.balances]
    while True:
        before = int((number >= 0).sum())
        for target, *parts in rows:
            for part in parts:
                _pass_on(number, classes.pinned, target, part)
            for part in parts:
                _pass_on(number, classes.pinned, part, target)
        for balance in tied:
            known = balance[number[balance] >= 0]
            if known.size:
                _pass_on(number, classes.pinned, np.full(balance.size, known[0]), balance.ravel())
        if int((number >= 0).sum()) == before:
            return number


def _pass_on(
    number: NDArray[np.int64], pinned: NDArray[np.bool_], giver: NDArray[np.int64], taker: NDArray[np.int64]
) -> None:
    giver, taker = np.broadcast_arrays(giver, taker)
    found = (number[giver] >= 0) & (number[taker] < 0) & pinned[taker]
    number[taker[found]] = number[giver[found]]


def _sources(coupling: Coupling, pins: list[Pin], used: set[int]) -> dict[int, Pin]:
    """For every pin in use the one that took the labels from the tensor it met, if that can be told."""
    primary = {(p.op, p.where): p for p in reversed(pins) if _primary(p)}
    nodes: dict[tuple[str, str], list[fx.Node]] = {}
    for node in coupling.program.module.graph.nodes:
        if node.op == "call_function":
            nodes.setdefault((op_name(node.target), owner(node)), []).append(node)
    found: dict[tuple[str, str], Pin | None] = {}
    for i in used:
        key = pins[i].op, pins[i].where
        if _met(pins[i]) and key not in found:
            found[key] = _upstream(nodes.get(key, []), primary)
    return {i: (found.get((pins[i].op, pins[i].where)) if _met(pins[i]) else None) or pins[i] for i in used}


def _primary(pin: Pin) -> bool:
    """Not what every network does: read its input by a layer, look rows up, give an output."""
    reads_input = pin.reason.startswith("meets the network's input") and pin.op in LAYERS
    return not _met(pin) and not reads_input and pin.reason not in _EVERYWHERE and pin.op != "output"


def _met(pin: Pin) -> bool:
    return pin.reason.startswith(_MET)


def _upstream(starts: list[fx.Node], primary: dict[tuple[str, str], Pin]) -> Pin | None:
    """The nearest operation above that pinned something for a reason of its own."""
    queue, seen = deque(starts), set(starts)
    while queue:
        node = queue.popleft()
        if node.op == "call_function":
            pin = primary.get((op_name(node.target), owner(node)))
            if pin is not None:
                return pin
        for source in node.all_input_nodes:
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return None
