"""The part of a plugin's context that methods need which train: copies, new analyses, masks and fresh weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from compress import registry
from compress.budget import in_scope
from compress.errors import InputError
from compress.graph import Coupling, DeadRemoval, Group, analyse, dead_units, remove_dead, trace
from compress.graph.fresh import fresh_tensors
from compress.graph.masks import unit_masks
from compress.plan import Ints
from compress.progress import Progress

if TYPE_CHECKING:
    from compress.plugin import Criterion


class Trainable:
    """The part of a plugin's context that methods need which train."""

    coupling: Coupling
    progress: Progress
    only: tuple[str, ...]
    exclude: tuple[str, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """What may shrink."""
        raise NotImplementedError

    def copy(self) -> fx.GraphModule:
        """The traced network with tensors of its own."""
        return copy.deepcopy(self.coupling.program.module)

    def rebuilt(self, network: fx.GraphModule) -> Coupling:
        """The analysis of a network that was made of this one and has another graph.

        Raises:
            ModelError: It cannot be traced.
        """
        program = self.coupling.program
        return analyse(trace(network, program.inputs), allow_frozen=not self.coupling.flow.untrained)

    def dead_units(self, coupling: Coupling | None = None) -> dict[str, Ints]:
        """By group the units that nothing that stays depends on; layers that the user's globs protect lose none.

        Args:
            coupling: Of a network made of this one; None for this one.
        """
        coupling = coupling or self.coupling
        names = [g.name for g in coupling.groups if in_scope(coupling, g.name, self.only, self.exclude)]
        return dead_units(coupling, names)

    def unit_masks(self, removed: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
        """By parameter, of its shape: True where a value stays when these units go; only parameters that lose some."""
        return unit_masks(self.coupling, removed)

    def remove_dead(self) -> DeadRemoval:
        """The network without the units that zeros have left without effect, of the groups that may shrink.

        Unlike `dead_units`, which finds those alone that nothing reads, it has constants carried into biases and
        proves the slice, which takes longer.

        Raises:
            ModelError: The network gives no finite numbers.
        """
        return remove_dead(self.coupling, {}, [group.name for group in self.groups])

    def fresh(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters and statistics as layers start with them, by name; says of which parameters no start is known."""
        found, left = fresh_tensors(self.coupling, generator)
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            self.progress.warn(f"no start is known for {', '.join(left[:3])}{more}: trained values stay")
        return found

    def criterion(self, name: str) -> Criterion:
        """The installed criterion of that name, with its options as they are by default.

        Raises:
            InputError: There is none.
        """
        method = registry.find(name)
        if method.kind != "criterion":
            known = ", ".join(m.name for m in registry.methods() if m.kind == "criterion")
            raise InputError(f"{name} is a {method.kind} and scores no units", f"criteria are {known}")
        made: Criterion = registry.create(name, {})[1]
        return made
