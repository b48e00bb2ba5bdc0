"""A partly pruned network in its full shape: what has gone is at zero, and units that stay keep their places.

It computes what the sliced network computes, by the oracle's rules (:mod:`compress.graph.verify`): what is removed is
zero where it would be summed and left out of every statistic. So a method can look at the network as it is on the way
to a budget, while its answer still speaks of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.calls import bind, op_name
from compress.graph.groups import Coupling, Group, Member
from compress.graph.labels import Value
from compress.graph.rules import Kept
from compress.graph.select import Cell, Cluster
from compress.graph.slice import attribute, slice_tensor
from compress.graph.verify import STATISTICS, SUMS, over_kept

Ints = NDArray[np.int64]


def partly_pruned(coupling: Coupling, removed: Mapping[str, Ints], sliced: fx.GraphModule) -> Coupling:
    """The analysis of a network without some of its units; the groups hold those that are left.

    Args:
        coupling: The analysed original.
        removed: By group the units that are gone.
        sliced: The network without them; its weights may have changed since it was sliced.
    """
    alive = coupling.alive(removed)
    masked = _Masked(coupling, alive)
    attributes = _spread(coupling, alive, sliced) | masked.masks
    module = fx.GraphModule(attributes, masked.graph, class_name="Network")
    nodes, flow = masked.nodes, coupling.flow
    return replace(
        coupling,
        program=replace(coupling.program, module=module),
        flow=replace(
            flow,
            values={nodes[n]: v for n, v in flow.values.items()},
            calls={nodes[n]: c for n, c in flow.calls.items()},
        ),
        groups=tuple(_left(group, removed.get(group.name)) for group in coupling.groups),
    )


def left_of(cluster: Cluster, removed: Mapping[str, Ints], sizes: Mapping[str, int]) -> Cluster:
    """What is left of a cluster: its units counted anew, and the steps that it has not taken.

    Args:
        cluster: Of the original.
        removed: By group the units that are gone.
        sizes: By group its units in the original.
    """
    cells, steps = [], cluster.steps
    for cell in cluster.cells:
        stays = np.ones(sizes[cell.group], dtype=bool)
        stays[removed.get(cell.group, [])] = False
        place = np.cumsum(stays) - 1
        cells.append(Cell(cell.group, place[cell.units[stays[cell.units]]]))
        steps = len(cells[-1].units) * cluster.steps // len(cell.units)
    return Cluster(tuple(cells), steps)


def _left(group: Group, gone: Ints | None) -> Group:
    if gone is None or not len(gone):
        return group
    stays = np.delete(np.arange(group.size), gone)
    members = tuple(Member(m.tensor, m.dim, m.index[stays], m.blocks) for m in group.members)
    return Group(group.name, group.kind, group.units[stays], members)


def _spread(coupling: Coupling, alive: NDArray[np.bool_], sliced: fx.GraphModule) -> dict[str, Any]:
    """What the graph reads, from the sliced network: its values where they were cut from, zero around them."""
    source = coupling.program.module
    kept = {id(attribute(source, name)): dims for name, dims in coupling.kept(alive).items()}
    done: dict[int, Any] = {}
    found: dict[str, Any] = {}
    for node in source.graph.nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        original = attribute(source, name)
        if id(original) not in done:
            done[id(original)] = _filled(original, kept.get(id(original)), attribute(sliced, name))
        found[name] = done[id(original)]
    return found


def _filled(original: Any, dims: dict[int, Ints] | None, smaller: Any) -> Any:
    if dims is None or not isinstance(original, Tensor):
        return smaller
    where = slice_tensor(torch.arange(original.numel()).reshape(original.shape), dims).flatten()
    full = torch.zeros_like(original.detach())
    full.view(-1)[where] = smaller.detach().flatten()
    return nn.Parameter(full, requires_grad=original.requires_grad) if isinstance(original, nn.Parameter) else full


class _Masked:
    """A copy of a graph in which sums and statistics leave out what is removed.

    Attributes:
        graph: The copy.
        nodes: By node of the original its copy.
        masks: By the name under which the graph reads it, a mask of the elements that stay.
    """

    def __init__(self, coupling: Coupling, alive: NDArray[np.bool_]) -> None:
        self.graph, self.kept = fx.Graph(), Kept(alive)
        self.values = coupling.flow.values
        self.nodes: dict[fx.Node, fx.Node] = {}
        self.masks: dict[str, Tensor] = {}
        self.masked: dict[fx.Node, fx.Node | None] = {}  # by node of the original, the node of its mask
        for node in coupling.program.module.graph.nodes:
            self.nodes[node] = self._copy(node)
        self.graph.set_codegen(coupling.program.module.graph._codegen)

    def _copy(self, node: fx.Node) -> fx.Node:
        op = op_name(node.target) if node.op == "call_function" else ""
        if op in STATISTICS and self._counts(op, node):
            named = bind(node.target, node.args, dict(node.kwargs))
            masks = fx.node.map_arg(named, self._mask)
            if any(isinstance(mask, fx.Node) for mask in masks.values()):
                args = (op, fx.node.map_arg(named, self.nodes.__getitem__), masks)
                return self._like(self.graph.call_function(over_kept, args), node)
        if op in SUMS:
            zeroed = {n: self._zeroed(n) for n in node.all_input_nodes}
            return self.graph.node_copy(node, zeroed.__getitem__)
        return self.graph.node_copy(node, self.nodes.__getitem__)

    def _counts(self, op: str, node: fx.Node) -> bool:
        """Whether an operation takes statistics now; a batch norm in use has stored them."""
        return op != "aten::batch_norm" or bool(bind(node.target, node.args, dict(node.kwargs))["training"])

    def _like(self, copy: fx.Node, node: fx.Node) -> fx.Node:
        copy.meta = dict(node.meta)
        return copy

    def _zeroed(self, node: fx.Node) -> fx.Node:
        """A copied input of a sum; zero where it is removed, which parameters are anyway."""
        copy, mask = self.nodes[node], None if node.op == "get_attr" else self._mask(node)
        if mask is None:
            return copy
        return self._like(self.graph.call_function(torch.where, (mask, copy, 0.0)), node)

    def _mask(self, node: fx.Node) -> fx.Node | None:
        if node not in self.masked:
            value = self.values.get(node)
            mask = self.kept.element_mask(value) if isinstance(value, Value) else None
            self.masked[node] = None if mask is None else self._stored(mask)
        return self.masked[node]

    def _stored(self, mask: NDArray[np.bool_]) -> fx.Node:
        name = f"_stays_{len(self.masks)}"
        self.masks[name] = torch.as_tensor(np.ascontiguousarray(mask))
        return self.graph.get_attr(name)
