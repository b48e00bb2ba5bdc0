"""How much of a network the engine may remove: the share of its channel indices that belong to a unit.

Counted are the indices of the channel dims of all layer weights: parameters of two dims or more that enter a linear
layer, a convolution, a recurrent layer, a matrix product, an einsum or an embedding as its weight, by way of other
constants too (a transpose, a standardisation). Left out, because no method could want them gone:

- kernel positions of convolutions;
- input dims that meet the network's input before any other layer weight (the channels of an image);
- rows that data looks up (the vocabulary of an embedding, the experts of a mixture);
- outputs of the network that no layer weight reads (the classes of a classifier).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.graph.causes import causes
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.operands import Operand, layer_operands
from compress.graph.propagate import Slot
from compress.graph.select import clusters
from compress.graph.slice import attribute

_LOOKED_UP = ("rows are looked up by the data", "looked up by index", "experts that the data chooses between")


@dataclass(frozen=True)
class Held:
    """Indices that cannot be removed, for one reason.

    Attributes:
        reason: In words.
        op: The operation that demands it, "" where it is a consequence of other demands.
        where: The module that owns the operation.
        indices: How many channel indices of layer weights.
    """

    reason: str
    op: str
    where: str
    indices: int


@dataclass(frozen=True)
class Freedom:
    """How many channel indices of the layer weights a unit can remove, and what holds the others, most first."""

    prunable: int
    held: tuple[Held, ...]

    @property
    def total(self) -> int:
        return self.prunable + sum(h.indices for h in self.held)

    @property
    def share(self) -> float:
        """``prunable / total``; 0 for a network without layer weights."""
        return self.prunable / self.total if self.total else 0.0


def freedom(coupling: Coupling) -> Freedom:
    """The share of prunable channel indices of an analysed network, and the reasons for the rest."""
    operands = list(layer_operands(coupling))
    removable, stuck = _removable(coupling)
    left_out = _left_out(coupling, operands)
    of_label, pinned = coupling.classes.of_label, coupling.classes.pinned
    why = causes(coupling)
    prunable = 0
    held: dict[tuple[str, str, str], int] = defaultdict(int)
    for slot in _channel_slots(coupling, operands):
        for cls in of_label[slot.labels].tolist():
            if removable[cls]:
                prunable += 1
            elif not left_out[cls]:
                pin = why.get(cls)
                if pin is not None:
                    held[pin.reason, pin.op, pin.where] += 1
                else:
                    held["tied to a dimension that stays" if pinned[cls] else _STUCK[stuck[cls]], "", ""] += 1
    found = [Held(reason, op, where, n) for (reason, op, where), n in held.items()]
    return Freedom(prunable, tuple(sorted(found, key=lambda h: -h.indices)))


_STUCK = (
    "nothing else gets smaller with these indices",
    "no smaller number of these indices leaves its blocks equal",
    "views in between tie these indices to each other: all would go or none",
)


def _removable(coupling: Coupling) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """By class: whether a unit may go and takes it along; and which of ``_STUCK`` forbids it where not."""
    free = np.zeros(len(coupling.classes.pinned), dtype=bool)
    stuck = np.zeros(len(free), dtype=np.int64)
    for cluster in clusters(coupling):
        alone = len(cluster.cells) == 1 and len(cluster.cells[0].units) == 1
        for cell in cluster.cells:
            units = coupling.group(cell.group).units[cell.units]
            free[units] = cluster.steps > 1
            stuck[units] = 2 if alone else 1
    for derived, parts in coupling.classes.parts.entry.items():
        found = stuck[list(parts)]
        free[derived], stuck[derived] = free[list(parts)].any(), 2 if (found == 2).all() else found.any()
    return free, stuck


def _channel_slots(coupling: Coupling, operands: list[Operand]) -> Iterator[Slot]:
    """The labelled channel dims of all layer weights, each once; rows of embeddings left out."""
    module = coupling.program.module
    dims: dict[int, set[int]] = defaultdict(set)  # by identity: tied weights have one slot under one of their names
    rows: set[int] = set()
    for operand in operands:
        for tensor in (attribute(module, name) for name in operand.parameters):
            dims[id(tensor)].update(range(2 if operand.kernel else tensor.dim()))
            if operand.lookup:
                rows.add(id(tensor))
    for slot in coupling.flow.slots:
        key = id(attribute(module, slot.tensor))
        if slot.dim in dims.get(key, ()) and not (key in rows and slot.dim == 0):
            yield slot


def _left_out(coupling: Coupling, operands: list[Operand]) -> NDArray[np.bool_]:
    """By class: pinned, and nothing that anyone would prune."""
    of_label = coupling.classes.of_label
    out = np.zeros(len(coupling.classes.pinned), dtype=bool)
    read = out.copy()
    for operand in operands:
        classes = _classes(coupling, operand.value, operand.summed)
        read[classes] = True
        if operand.reads_input:
            out[classes] = True
    outputs = _outputs(coupling)
    out |= outputs & ~read
    for pin in coupling.flow.relations.pins:
        if pin.reason in _LOOKED_UP:
            out[of_label[pin.labels]] = True
    out[of_label[0]] = False
    return out


def _classes(coupling: Coupling, value: Value, axes: Iterable[int]) -> NDArray[np.int64]:
    """Classes of the labels that shorten the given axes of a tensor."""
    wanted = {axis % value.rank for axis in axes}
    found = [f.labels.ravel() for f in value.factors if f.axis in wanted]
    return coupling.classes.of_label[np.unique(np.concatenate(found))] if found else np.zeros(0, dtype=np.int64)


def _outputs(coupling: Coupling) -> NDArray[np.bool_]:
    """By class: an index of an output of the network, or made of nothing but such."""
    of_label = coupling.classes.of_label
    found = np.zeros(len(coupling.classes.pinned), dtype=bool)
    node = next(n for n in coupling.program.module.graph.nodes if n.op == "output")
    for source in node.all_input_nodes:
        values = coupling.flow.values[source]
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, Value):
                found[_classes(coupling, value, range(value.rank))] = True
    found[of_label[0]] = True
    changed = True
    while changed:
        changed = False
        for target, *parts in coupling.flow.relations.definitions:
            whole = np.logical_and.reduce([found[of_label[p]] for p in parts])
            new = of_label[target[whole]]
            changed |= not found[new].all()
            found[new] = True
    return found
