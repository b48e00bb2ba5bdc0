"""Exact removal of units that masks have left dead.

A unit is dead behind when no layer reads it any more (all its outgoing weights are zero), and dead before when
nothing reaches it (all its incoming weights are zero). The first is simply removed; the second puts out a constant,
which is carried into the biases of the layers that read it. Both make further units dead, so this is repeated until
nothing changes. Everything is done and compared with the masked network in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.blocks import clear
from compress.graph.double import as_double, double_by_default, leaves
from compress.graph.groups import Coupling, Group, Member
from compress.graph.propagate import bind, op_name
from compress.graph.select import clusters
from compress.graph.slice import attribute, slice_graph
from compress.graph.verify import TOLERANCE, Verification, compare

_LAYERS = {
    "aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d",
}  # fmt: skip
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """A layer that reads a dim of a weight: where its input, bias and padding are."""

    node: fx.Node
    weight: str
    bias: str | None
    grouped: bool
    padded: bool


@dataclass(frozen=True)
class DeadRemoval:
    """Outcome of :func:`remove_dead`.

    Attributes:
        module: The sliced network in the precision of the original.
        removed: By group the units that went.
        carried: How many of them put out a constant that is not zero.
        verification: The sliced network against the masked one, in float64.
    """

    module: fx.GraphModule
    removed: Mapping[str, Ints]
    carried: int
    verification: Verification


def remove_dead(coupling: Coupling, masks: Mapping[str, Tensor]) -> DeadRemoval:
    """Zero the masked weights and remove what that leaves dead.

    Args:
        coupling: The analysed network.
        masks: By parameter name, True where a weight stays.
    """
    masked = as_double(coupling.program.module)
    tensors = _attributes(masked)  # copies already
    for name, mask in masks.items():
        tensors[name] = tensors[name] * mask
    reference = fx.GraphModule(dict(tensors), masked.graph)
    search = _Search(coupling, dict(tensors))
    while search.round():
        pass
    return _checked(coupling, reference, search, _balanced(coupling, search.gone))


def _balanced(coupling: Coupling, gone: Mapping[str, NDArray[np.bool_]]) -> dict[str, Ints]:
    """The dead units that can go: as many in each block as in the block that has fewest; the others stay as zeros."""
    removed: dict[str, list[Ints]] = {}
    for cluster in clusters(coupling):
        dead = [cell.units[gone[cell.group][cell.units]] for cell in cluster.cells]
        shares = [len(cell.units) // cluster.steps for cell in cluster.cells]
        steps = min(len(units) // share for units, share in zip(dead, shares, strict=True))
        for cell, units, share in zip(cluster.cells, dead, shares, strict=True):
            removed.setdefault(cell.group, []).append(units[: steps * share])
    found = {name: np.sort(np.concatenate(parts)) for name, parts in removed.items()}
    return {name: units for name, units in found.items() if len(units)}


def _checked(coupling: Coupling, reference: fx.GraphModule, search: _Search, removed: dict[str, Ints]) -> DeadRemoval:
    """Slice and compare; where the comparison fails, nothing is removed and the masked network is the result."""
    wide = slice_graph(coupling, coupling.alive(removed), search.tensors)
    with torch.no_grad(), double_by_default():
        inputs = [x.double() if x.is_floating_point() else x for x in coupling.program.inputs]
        expected, got = reference(*inputs), as_double(wide)(*inputs)
    outcome = compare(leaves(expected), leaves(got), TOLERANCE)
    if not outcome.passed and removed:
        plain = _Search(coupling, _attributes(reference))
        return _checked(coupling, reference, plain, {})
    return DeadRemoval(_narrowed(wide, coupling), removed, search.carried, outcome)


def _attributes(module: fx.GraphModule) -> dict[str, Any]:
    names = [str(n.target) for n in module.graph.nodes if n.op == "get_attr"]
    return {n: attribute(module, n) for n in names}


def _narrowed(wide: fx.GraphModule, coupling: Coupling) -> fx.GraphModule:
    """The float64 result with the graph's own casts and precision of the original."""
    source = _attributes(coupling.program.module)
    tensors = {}
    for name, tensor in _attributes(wide).items():
        like = source[name]
        value = tensor.to(like.dtype) if isinstance(tensor, Tensor) else tensor
        is_parameter = isinstance(like, nn.Parameter)
        tensors[name] = nn.Parameter(value.detach(), like.requires_grad) if is_parameter else value
    return fx.GraphModule(tensors, wide.graph, class_name="Network")


class _Search:
    """Finds dead units round by round; ``tensors`` are the float64 weights with constants carried forward."""

    def __init__(self, coupling: Coupling, tensors: dict[str, Any]) -> None:
        self.coupling = coupling
        self.tensors = tensors
        self.gone = {g.name: np.zeros(g.size, dtype=bool) for g in coupling.groups}
        self.carried = 0
        self.layers = _layers(coupling)
        self.readers = {layer.weight: layer for layer in self.layers}

    def round(self) -> bool:
        """Mark the units that are dead now; whether there were any."""
        constants = self._constants()
        found = False
        for group in self.coupling.groups:
            behind = self._silent(group, reading=True) & ~self.gone[group.name]
            before = self._silent(group, reading=False) & ~self.gone[group.name] & ~behind
            for unit in np.flatnonzero(behind | before):
                if (~self.gone[group.name]).sum() <= 1:
                    break  # one unit always stays
                if behind[unit] or self._carry(group, int(unit), constants):
                    self.gone[group.name][unit] = True
                    self._erase(group, int(unit))
                    found = True
        return found

    def _members(self, group: Group, reading: bool) -> list[Member] | None:
        """The weights that read a group, or those that make it; None where something else has a part in it."""
        found = []
        for member in group.members:
            layer = self.readers.get(member.tensor)
            if layer is None:
                if (
                    isinstance(attribute(self.coupling.program.module, member.tensor), nn.Parameter)
                    and len(attribute(self.coupling.program.module, member.tensor).shape) > 1
                ):
                    return None
                continue
            if layer.grouped:
                return None
            if (member.dim == 1) == reading:
                found.append(member)
        return found

    def _silent(self, group: Group, reading: bool) -> NDArray[np.bool_]:
        """Units all of whose weights on one side are zero."""
        members = self._members(group, reading)
        if not members:
            return np.zeros(group.size, dtype=bool)
        silent = np.ones(group.size, dtype=bool)
        for member in members:
            values = member.values(self.tensors[member.tensor])
            silent &= (values.reshape(group.size, -1) == 0).all(1).numpy()
        return silent

    def _carry(self, group: Group, unit: int, constants: Mapping[str, Tensor]) -> bool:
        """Move the constant of a unit that nothing reaches into the biases behind it; False where that is not exact."""
        plans = []
        for member in self._members(group, reading=True) or []:
            name, index = member.tensor, torch.as_tensor(member.index[unit])
            layer = self.readers[name]
            values = constants[name][index]
            if bool(torch.isnan(values).any()):
                return False
            shift = self.tensors[name][:, index]
            shift = (shift.flatten(2).sum(2) if shift.dim() > 2 else shift) @ values
            if bool((shift != 0).any()) and (layer.bias is None or layer.padded):
                return False
            plans.append((layer.bias, shift))
        for bias, shift in plans:
            if bias is not None and bool((shift != 0).any()):
                self.tensors[bias] = self.tensors[bias] + shift
                self.carried += 1
        return bool(plans)

    def _erase(self, group: Group, unit: int) -> None:
        for member in group.members:
            tensor = self.tensors[member.tensor].clone()
            clear(tensor, member.dim, member.blocks, member.index[unit])
            self.tensors[member.tensor] = tensor

    def _constants(self) -> dict[str, Tensor]:
        """By weight, what each input index of its layer is on all positions; NaN where it varies."""
        module = fx.GraphModule(dict(self.tensors), as_double(self.coupling.program.module).graph)
        by_name = {layer.node.name: layer for layer in self.layers}
        found: dict[str, Tensor] = {}

        class Probe(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                layer = by_name.get(n.name)
                if layer is not None:
                    x = self.fetch_args_kwargs_from_env(n)[0][0]
                    axis = x.dim() - 1 if op_name(n.target) == "aten::linear" else 1
                    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
                    same = (rows == rows[:, :1]).all(1)
                    found[layer.weight] = torch.where(same, rows[:, 0], torch.full_like(rows[:, 0], float("nan")))
                return super().run_node(n)

        inputs = [x.double() if x.is_floating_point() else x for x in self.coupling.program.inputs]
        with torch.no_grad(), double_by_default():
            Probe(module).run(*inputs, enable_io_processing=False)
        return found


def _layers(coupling: Coupling) -> list[Layer]:
    """Layers whose weight is a parameter of its own."""
    found: dict[str, Layer] = {}
    shared = set()
    for node, call in coupling.flow.calls.items():
        if call.op not in _LAYERS:
            continue
        args = bind(node.target, node.args, node.kwargs)
        weight, bias = args["weight"], args.get("bias")
        if weight.op != "get_attr" or (bias is not None and bias.op != "get_attr"):
            continue
        padding = args.get("padding", 0)
        padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
        name = str(weight.target)
        shared |= {name} & set(found)
        found[name] = Layer(node, name, None if bias is None else str(bias.target), call.get("groups", 1) > 1, padded)
    return [layer for name, layer in found.items() if name not in shared]
