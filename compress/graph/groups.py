"""Units that live and die together, gathered into groups of interchangeable ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.blocks import values_at
from compress.graph.propagate import Flow, Slot
from compress.graph.resolve import Classes, Ints, resolve
from compress.graph.rules import UnbalancedError
from compress.graph.trace import Program


@dataclass(frozen=True)
class Member:
    """One dim of a parameter or buffer that a group shortens.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: The dim.
        index: (units, k) - the k indices of the dim that each unit holds.
        blocks: In how many blocks of rows the dim counts its indices anew; see :mod:`compress.graph.blocks`.
    """

    tensor: str
    dim: int
    index: Ints
    blocks: int = 1

    def values(self, tensor: Tensor) -> Tensor:
        """What the tensor holds for each unit, shape (units, k, ...); a copy."""
        return values_at(tensor, self.dim, self.blocks, self.index)


@dataclass(frozen=True)
class Group:
    """A family of coupled units: removing unit ``u`` removes ``index[u]`` of every member.

    Attributes:
        name: Unique; the module that produces the units, such as ``layer1.0.conv1``.
        kind: ``channels`` (single indices), or ``blocks`` (heads, groups of a convolution).
        units: Free classes, one for each unit.
        members: Everything a unit holds; first the weight that makes the units.
    """

    name: str
    kind: str
    units: Ints
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Frozen:
    """A dim of a parameter that keeps its size, wholly or in part, and why."""

    tensor: str
    dim: int
    indices: int
    op: str
    where: str
    reason: str


@dataclass(frozen=True)
class Coupling:
    """Everything that is known about a traced network before a method decides.

    Attributes:
        program: The traced network.
        flow: Labels of every tensor.
        classes: What lives and dies together.
        groups: Families of units, in graph order.
        frozen: Dims that cannot shrink, with the reason.
    """

    program: Program
    flow: Flow
    classes: Classes
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]

    def group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def layers_of(self, name: str) -> list[str]:
        """The modules whose outputs the units of a group are, in graph order; "" for the root is left out."""
        outputs = output_dims(self.flow)
        made = (m.tensor for m in self.group(name).members if m.dim == outputs.get(m.tensor, 0))
        return [layer for layer in dict.fromkeys(tensor.rpartition(".")[0] for tensor in made) if layer]

    @cached_property
    def group_of_unit(self) -> dict[int, int]:
        """Position of the group of every unit (by class)."""
        return {int(u): i for i, g in enumerate(self.groups) for u in g.units}

    @cached_property
    def overlaps(self) -> dict[str, frozenset[str]]:
        """Groups that reach the same indices as another (heads and the features inside the heads)."""
        found: dict[str, set[str]] = defaultdict(set)
        for parts in self.classes.parts.values():
            names = {self.groups[self.group_of_unit[p]].name for p in parts if p in self.group_of_unit}
            for name in names:
                found[name] |= names - {name}
        return {name: frozenset(others) for name, others in found.items() if others}

    def alive(self, removed: Mapping[str, Iterable[int]]) -> NDArray[np.bool_]:
        """By label: what stays when the given units of the named groups go."""
        classes = [self.group(name).units[np.asarray(list(units), dtype=np.int64)] for name, units in removed.items()]
        return self.classes.alive(np.concatenate([np.zeros(0, dtype=np.int64), *classes]))

    def kept(self, alive: NDArray[np.bool_]) -> dict[str, dict[int, Ints]]:
        """For every tensor that gets smaller, the indices that stay, by dim.

        Where a dim counts its indices anew in every block of rows, an array (blocks that stay, k).

        Raises:
            UnbalancedError: Such blocks would keep different numbers of indices.
        """
        found: dict[str, dict[int, Ints]] = {}
        for slot in self.flow.slots:
            stays = alive[slot.labels]
            if stays.all():
                continue
            index = np.flatnonzero(stays) if slot.blocks == 1 else self._kept_by_block(slot, alive)
            if index is not None:
                found.setdefault(slot.tensor, {})[slot.dim] = index
        return found

    def _kept_by_block(self, slot: Slot, alive: NDArray[np.bool_]) -> Ints | None:
        """By block of rows the indices that stay; None where the blocks that stay are whole."""
        stays = alive[slot.labels].reshape(slot.blocks, -1)
        for other in self.flow.slots:
            if other.tensor == slot.tensor and other.dim == 0:
                stays = stays[alive[other.labels].reshape(slot.blocks, -1).any(1)]
        counts = np.unique(stays.sum(1))
        if len(counts) > 1:
            raise UnbalancedError(f"blocks of {slot.tensor} keep different counts {counts.tolist()}")
        return None if stays.all() else np.nonzero(stays)[1].reshape(len(stays), -1)


def couple(program: Program, flow: Flow) -> Coupling:
    """Solve the relations of ``flow`` and gather the units into groups."""
    classes = resolve(flow.relations)
    blocks = np.zeros(len(classes.pinned), dtype=bool)
    for labels in flow.relations.block_labels:
        blocks[classes.of_label[labels]] = True
    groups = _groups(flow.slots, classes, blocks, output_dims(flow))
    return Coupling(program, flow, classes, groups, _frozen(flow, classes))


def _incidence(slots: tuple[Slot, ...], classes: Classes) -> tuple[Ints, Ints, Ints]:
    """Rows (unit, slot, index): every index of every slot with the units that remove it."""
    unit: list[Ints] = []
    where: list[Ints] = []
    index: list[Ints] = []
    derived = np.zeros(len(classes.pinned), dtype=bool)
    derived[list(classes.parts)] = True
    for position, slot in enumerate(slots):
        of = classes.of_label[slot.labels]
        plain = np.flatnonzero(~classes.pinned[of] & ~derived[of])
        unit.append(of[plain])
        index.append(plain)
        for i in np.flatnonzero(derived[of]):
            parts = np.asarray(classes.parts[int(of[i])], dtype=np.int64)
            unit.append(parts)
            index.append(np.full(len(parts), i, dtype=np.int64))
        where.append(np.full(sum(map(len, unit)) - sum(map(len, where)), position, dtype=np.int64))
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *unit]), np.concatenate([empty, *where]), np.concatenate([empty, *index])


def output_dims(flow: Flow) -> dict[str, int]:
    """The dim along which a weight holds what its layer produces, for those where it is not the first.

    Transposed convolutions store (in, out, ...), and so does the second operand of a matrix product.
    """
    found: dict[str, int] = {}
    for node, call in flow.calls.items():
        transposed = call.op.startswith("aten::conv_transpose") or call.get("transposed", False)
        if transposed or call.op in ("aten::matmul", "aten::mm"):
            weight = node.args[1] if len(node.args) > 1 else None
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                found[str(weight.target)] = 1
    return found


def _groups(
    slots: tuple[Slot, ...], classes: Classes, blocks: NDArray[np.bool_], outputs: Mapping[str, int]
) -> tuple[Group, ...]:
    unit, where, index = _incidence(slots, classes)
    order = np.lexsort((index, where, unit))
    unit, where, index = unit[order], where[order], index[order]
    starts = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]]) if len(unit) else np.zeros(0, dtype=np.int64)
    families: dict[tuple[bytes, bool], list[tuple[int, int]]] = defaultdict(list)
    stops = np.r_[starts[1:], len(unit)] if len(unit) else starts
    for start, stop in zip(starts, stops, strict=True):
        if stop - start == 1:  # read by nothing that would get smaller: see _unread
            continue
        key = (where[start:stop].tobytes(), bool(blocks[unit[start]]))
        families[key].append((int(start), int(stop)))
    names: dict[str, int] = defaultdict(int)
    groups = []
    for (signature, block), spans in sorted(families.items(), key=lambda item: item[1][0]):
        spans.sort(key=lambda span: index[span[0]])
        groups.append(_group(slots, signature, block, spans, unit, index, names, outputs))
    return tuple(sorted(groups, key=lambda g: _position(slots, g)))


def _unread(slots: tuple[Slot, ...], classes: Classes) -> Ints:
    """Units of one index alone, such as rows of a position table beyond the example's length: they stay."""
    unit = _incidence(slots, classes)[0]
    found, counts = np.unique(unit, return_counts=True)
    return found[counts == 1]


def _group(
    slots: tuple[Slot, ...],
    signature: bytes,
    block: bool,
    spans: list[tuple[int, int]],
    unit: Ints,
    index: Ints,
    names: dict[str, int],
    outputs: Mapping[str, int],
) -> Group:
    positions = np.frombuffer(signature, dtype=np.int64)
    table = np.stack([index[start:stop] for start, stop in spans])
    members = tuple(
        Member(slots[p].tensor, slots[p].dim, table[:, positions == p], slots[p].blocks)
        for p in dict.fromkeys(positions.tolist())
    )
    producer = _producer(members, outputs)
    members = (producer, *(m for m in members if m is not producer))
    base = producer.tensor.removesuffix(".weight") + (".blocks" if block else "")
    names[base] += 1
    name = base if names[base] == 1 else f"{base}#{names[base]}"
    return Group(name, "blocks" if block else "channels", unit[[s for s, _ in spans]], members)


def _producer(members: tuple[Member, ...], outputs: Mapping[str, int]) -> Member:
    """The weight whose outputs the units are."""
    made = (m for m in members if m.dim == outputs.get(m.tensor, 0) and m.tensor.endswith("weight"))
    return next(made, members[0])


def _position(slots: tuple[Slot, ...], group: Group) -> int:
    first = group.members[0]
    return next(i for i, s in enumerate(slots) if s.tensor == first.tensor and s.dim == first.dim)


_TRIVIAL = ("kernel position of a convolution",)


def _frozen(flow: Flow, classes: Classes) -> tuple[Frozen, ...]:
    """Pinned dims with the first reason that was met, kernel positions left out; and indices nothing depends on."""
    found = []
    unread = _unread(flow.slots, classes)
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
        found.append(Frozen(slot.tensor, slot.dim, int(held.sum()), op, where, reason))
    return tuple(found)
