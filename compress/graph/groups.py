"""Units that live and die together, gathered into groups of interchangeable ones."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.blocks import values_at
from compress.graph.propagate import Flow, Slot
from compress.graph.resolve import Classes, Ints
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
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    @cached_property
    def _outputs(self) -> dict[str, int]:
        return transposed_dims(self.flow)

    def layers_of(self, name: str) -> list[str]:
        """The modules whose outputs the units of a group are, in graph order; "" for the root is left out."""
        made = (m.tensor for m in self.group(name).members if m.dim == self._outputs.get(m.tensor, 0))
        return [layer for layer in dict.fromkeys(tensor.rpartition(".")[0] for tensor in made) if layer]

    @cached_property
    def group_of_unit(self) -> dict[int, int]:
        """Position of the group of every unit (by class)."""
        return {int(u): i for i, g in enumerate(self.groups) for u in g.units}

    @cached_property
    def overlaps(self) -> dict[str, frozenset[str]]:
        """Groups that reach the same indices as another (heads and the features inside the heads)."""
        found: dict[str, set[str]] = defaultdict(set)
        for together in self._met_in_one_index():
            names = {self.groups[i].name for i in together}
            for name in names:
                found[name] |= names - {name}
        return {name: frozenset(others) for name, others in found.items() if others}

    def _met_in_one_index(self) -> set[tuple[int, ...]]:
        """The sets of groups that derived classes consist of, as sorted positions."""
        group_of = np.full(len(self.classes.pinned), -1, dtype=np.int64)
        for i, group in enumerate(self.groups):
            group_of[group.units] = i
        parts, count = self.classes.parts, len(self.groups) + 1
        row = np.repeat(np.arange(len(parts.derived)), np.diff(parts.starts))
        row, which = np.divmod(np.unique(row * count + group_of[parts.flat] + 1), count)
        row, which = row[which > 0], which[which > 0] - 1
        bounds = [*np.flatnonzero(np.diff(row, prepend=-1)).tolist(), len(row)]
        positions = which.tolist()
        return {tuple(positions[a:b]) for a, b in itertools.pairwise(bounds) if b - a > 1}

    def alive(self, removed: Mapping[str, Iterable[int]]) -> NDArray[np.bool_]:
        """By label: what stays when the given units of the named groups go."""
        classes = [self.group(name).units[np.asarray(list(units), dtype=np.int64)] for name, units in removed.items()]
        return self.classes.alive(np.concatenate([np.zeros(0, dtype=np.int64), *classes]))

    def removed(self, alive: NDArray[np.bool_]) -> dict[str, Ints]:
        """By group the units that are gone: the inverse of :meth:`alive`."""
        stays = np.ones(len(self.classes.pinned), dtype=bool)
        stays[self.classes.of_label] = alive
        gone = {group.name: np.flatnonzero(~stays[group.units]) for group in self.groups}
        return {name: units for name, units in gone.items() if len(units)}

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


def transposed_dims(flow: Flow) -> dict[str, int]:
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
