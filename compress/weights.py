"""What a method sees of the weights of the network that it is to prune."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, fx

from compress.graph import Coupling, Group, Member, attribute, layer_weights
from compress.graph.mass import Mass, mass
from compress.graph.operands import layer_operands, output_dims


class Weights:
    """The part of a plugin's context that looks at parameters. Nothing in it may be changed."""

    coupling: Coupling

    @property
    def groups(self) -> tuple[Group, ...]:
        """What may shrink."""
        raise NotImplementedError

    @property
    def module(self) -> fx.GraphModule:
        """The traced network; parameters under the names of the user's module."""
        return self.coupling.program.module

    def weight(self, name: str) -> Tensor:
        """Parameter or buffer by its name, detached."""
        tensor: Tensor = attribute(self.module, name)
        return tensor.detach()

    def unit_weights(self, group: Group) -> list[Tensor]:
        """For every parameter that the group shortens, its values by unit: tensors of shape (units, values)."""
        found = []
        for member in group.members:
            if not isinstance(attribute(self.module, member.tensor), torch.nn.Parameter):
                continue
            found.append(member.values(self.weight(member.tensor)).reshape(group.size, -1))
        return found

    def unit_mass(self, group: Group, p: float = 2.0) -> list[Tensor]:
        """For every parameter that the group shortens, the sum of |w|^p by unit: float64 tensors of shape (units,).

        The same as from :meth:`unit_weights`, without its copies.
        """
        found = []
        for member in group.members:
            if not isinstance(attribute(self.module, member.tensor), torch.nn.Parameter):
                continue
            sums = self._mass(member.tensor, p).along(member.dim, member.blocks)
            found.append(sums[torch.as_tensor(member.index, device=sums.device)].sum(1))
        return found

    def _mass(self, name: str, p: float) -> Mass:
        key = (name, p)
        if key not in self._masses:
            self._masses[key] = mass(self.weight(name), p, self._blocks[name])
        return self._masses[key]

    @cached_property
    def _masses(self) -> dict[tuple[str, float], Mass]:
        return {}

    @cached_property
    def _blocks(self) -> dict[str, int]:
        """By tensor, in how many blocks of rows some of its dims count their indices anew."""
        found: dict[str, int] = {}
        for slot in self.coupling.flow.slots:
            found[slot.tensor] = max(slot.blocks, found.get(slot.tensor, 1))
        return found

    def producers(self, group: Group) -> tuple[Member, ...]:
        """Of the members of a group those that make its units: in a residual stream all layers that add to it."""
        outputs = self._output_dims
        return tuple(m for m in group.members if m is group.members[0] or outputs.get(m.tensor) == m.dim)

    def output_dim(self, name: str) -> int:
        """The dim of a layer's weight that its outputs come from: 1 where a weight is (in, out)."""
        return self._output_dims.get(name, 0)

    @cached_property
    def _output_dims(self) -> dict[str, int]:
        return output_dims(self.coupling)

    @cached_property
    def first_layers(self) -> frozenset[str]:
        """Weights that meet the network's input before any other has touched it."""
        return frozenset(n for o in layer_operands(self.coupling) if o.reads_input for n in o.parameters)

    def layers(self, every: bool = False) -> dict[str, Tensor]:
        """Weights of linear layers, convolutions and matrix products, in graph order: those that the groups shorten.

        Args:
            every: Those that keep their size, too.
        """
        shortened = {m.tensor for g in self.groups for m in g.members}
        return {n: self.weight(n) for n in layer_weights(self.coupling) if every or n in shortened}
