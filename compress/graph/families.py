"""Units gathered into families: those that reach the same dims of the same tensors are interchangeable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.graph.features import KEPT_INPUTS
from compress.graph.groups import Coupling, Frozen, Group, Member, transposed_dims
from compress.graph.propagate import UNTRAINED, Flow, Slot
from compress.graph.resolve import Classes, Ints, resolve
from compress.graph.trace import Program


def couple(program: Program, flow: Flow) -> Coupling:
    """Solve the relations of ``flow`` and gather the units into groups."""
    classes = resolve(flow.relations)
    blocks = np.zeros(len(classes.pinned), dtype=bool)
    for labels in flow.relations.block_labels:
        blocks[classes.of_label[labels]] = True
    rows = _incidence(flow.slots, classes)
    groups = _groups(flow.slots, rows, blocks, transposed_dims(flow))
    return Coupling(program, flow, classes, groups, _frozen(flow, classes, _unread(rows[0])))


def thawed(coupling: Coupling) -> Coupling:
    """The coupling as it would be were no parameter frozen (``requires_grad=False``)."""
    flow = coupling.flow
    if not flow.untrained:
        return coupling
    free = replace(flow.relations, pins=[p for p in flow.relations.pins if p.reason != UNTRAINED])
    return couple(coupling.program, replace(flow, relations=free, untrained=frozenset()))


def _incidence(slots: tuple[Slot, ...], classes: Classes) -> tuple[Ints, Ints, Ints]:
    """Rows (unit, slot, index): every index of every slot with the units that remove it; sorted."""
    if not slots:
        return (np.zeros(0, dtype=np.int64),) * 3
    sizes = [len(slot.labels) for slot in slots]
    where = np.repeat(np.arange(len(slots)), sizes)
    index = np.concatenate([np.arange(n) for n in sizes])
    row, unit = classes.units_of(np.concatenate([slot.labels for slot in slots]))
    order = np.argsort(unit, kind="stable")  # rows come by slot and index
    row = row[order]
    return unit[order], where[row], index[row]


def _groups(
    slots: tuple[Slot, ...], rows: tuple[Ints, Ints, Ints], blocks: NDArray[np.bool_], outputs: Mapping[str, int]
) -> tuple[Group, ...]:
    unit, where, index = rows
    names: dict[str, int] = defaultdict(int)
    positions = {(slot.tensor, slot.dim): i for i, slot in reversed(list(enumerate(slots)))}
    groups = []
    for found in _families(unit, where, blocks):
        first = found[np.argsort(index[found], kind="stable")]
        length = int(np.searchsorted(unit, unit[first[0]], "right")) - int(first[0])
        signature = where[first[0] : first[0] + length]
        groups.append(_group(slots, signature, bool(blocks[unit[first[0]]]), first, unit, index, names, outputs))
    return tuple(sorted(groups, key=lambda g: positions[g.members[0].tensor, g.members[0].dim]))


def _families(unit: Ints, where: Ints, blocks: NDArray[np.bool_]) -> list[Ints]:
    """Where the rows of units start, by families of units that lie in the same slots; in order of the first unit.

    Units of a single row are left out: they are read by nothing that would get smaller, see :func:`_unread`.
    """
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    lengths = np.diff(starts, append=len(unit))
    found = []
    for length in np.unique(lengths[lengths > 1]).tolist():
        own = starts[lengths == length]
        table = np.empty((len(own), length + 1), dtype=np.int64)
        table[:, 0] = blocks[unit[own]]
        table[:, 1:] = where[own[:, None] + np.arange(length)]
        whole = table.view(np.dtype((np.void, table.itemsize * (length + 1)))).ravel()
        _, family, counts = np.unique(whole, return_inverse=True, return_counts=True)
        found += np.split(own[np.argsort(family, kind="stable")], np.cumsum(counts)[:-1])
    return sorted(found, key=lambda family: int(family[0]))


def _unread(unit: Ints) -> Ints:
    """Units of one index alone, such as rows of a position table beyond the example's length: they stay."""
    found, counts = np.unique(unit, return_counts=True)
    return found[counts == 1]


def _group(
    slots: tuple[Slot, ...],
    positions: Ints,
    block: bool,
    first: Ints,
    unit: Ints,
    index: Ints,
    names: dict[str, int],
    outputs: Mapping[str, int],
) -> Group:
    table = index[first[:, None] + np.arange(len(positions))]
    dims, columns = np.unique(positions, return_index=True)  # sorted: the columns of one dim are neighbours
    members = tuple(
        Member(slots[p].tensor, slots[p].dim, table[:, a:b], slots[p].blocks)
        for p, a, b in zip(dims.tolist(), columns, [*columns[1:], None], strict=True)
    )
    producer = _producer(members, outputs)
    members = (producer, *(m for m in members if m is not producer))
    base = producer.tensor.removesuffix(".weight") + (".blocks" if block else "")
    names[base] += 1
    name = base if names[base] == 1 else f"{base}#{names[base]}"
    return Group(name, "blocks" if block else "channels", unit[first], members)


def _producer(members: tuple[Member, ...], outputs: Mapping[str, int]) -> Member:
    """The selection of input features, where these are the units; else the weight whose outputs they are."""
    chosen = (m for m in members if m.tensor.startswith(KEPT_INPUTS))
    weights = (m for m in members if m.tensor.rpartition(".")[2].startswith("weight"))  # weight_ih_l0, too
    made = (m for m in weights if m.dim == outputs.get(m.tensor, 0))
    return next(chosen, next(made, members[0]))


_TRIVIAL = ("kernel position of a convolution",)


def _frozen(flow: Flow, classes: Classes, unread: Ints) -> tuple[Frozen, ...]:
    """Pinned dims with the first reason that was met, kernel positions left out; and indices nothing depends on."""
    found = []
    for slot in flow.slots:
        of = classes.of_label[slot.labels]
        held = classes.pinned[of]
        alone = int(np.isin(of, unread).sum())
        if alone:
            found.append(Frozen(slot.tensor, slot.dim, alone, "", "", "nothing else gets smaller with these indices"))
        if not held.any():
            continue
        pin = next((classes.pin_of[c] for c in of[held].tolist() if c in classes.pin_of), None)
        if pin is not None and pin.reason in _TRIVIAL:
            continue
        op, where, reason = (pin.op, pin.where, pin.reason) if pin else ("", "", "tied to a dimension that stays")
        if reason == UNTRAINED and slot.tensor not in flow.untrained:
            reason = f"tied to a parameter whose {UNTRAINED}"
        found.append(Frozen(slot.tensor, slot.dim, int(held.sum()), op, where, reason))
    return tuple(found)
