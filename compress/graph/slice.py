"""The graph slicer: smaller parameters, and the constants of the calls that follow from them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.blocks import select
from compress.graph.calls import bind
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules import REWRITES, Cut, Kept
from compress.graph.trace import attribute as attribute


def slice_tensor(tensor: Tensor, kept: dict[int, NDArray[np.int64]]) -> Tensor:
    """Copy of ``tensor`` with only the kept indices of the given dims, as :meth:`Coupling.kept` names them."""
    for dim, index in sorted(kept.items()):  # rows first: blocks of rows are told by those that stay
        tensor = select(tensor, dim, index)
    return tensor.contiguous()


def slice_graph(
    coupling: Coupling, alive: NDArray[np.bool_], tensors: Mapping[str, Any] | None = None
) -> fx.GraphModule:
    """Physically smaller copy of the traced network; tensors that do not shrink are shared with it.

    Args:
        coupling: The analysed network.
        alive: By label, what stays.
        tensors: Parameters and buffers by name to use instead of the network's own (of the same shapes).

    Raises:
        UnbalancedError: Blocks of a view would keep different numbers of indices.
    """
    kept = Kept(alive)
    source = coupling.program.module
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in source.graph.nodes:
        copy = graph.node_copy(node, mapping.__getitem__)
        mapping[node] = copy
        copy.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
        call = coupling.flow.calls.get(node)
        change = REWRITES.get(call.op) if call else None
        if call is None or change is None:
            continue
        found = coupling.flow.values[node]
        outs = (found,) if isinstance(found, Value) else tuple(found)
        _apply(graph, copy, call.args, change(Cut(call, outs, kept)))
    graph.set_codegen(source.graph._codegen)
    attributes = _attributes(source, coupling.kept(alive), tensors or {})
    _renumber(coupling, kept, attributes)
    return fx.GraphModule(attributes, graph, class_name="Network")


def _apply(graph: fx.Graph, node: fx.Node, old: dict[str, Any], changes: dict[str, Any]) -> None:
    """Write changed arguments into a call; sizes that are computed at run time are scaled instead of replaced."""
    if not changes:
        return
    target = changes.pop("@target", None)
    if target is not None:
        first = node.args[0]
        node.target = getattr(torch.ops.aten, target.removeprefix("aten::")).default
        node.args, node.kwargs = (first, changes["split_sizes"], changes["dim"]), {}
        return
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    for name, new in changes.items():
        position = names.index(name)
        present = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        merged = _merge(graph, node, present, old.get(name), new)
        if position < len(node.args):
            node.update_arg(position, merged)
        else:
            node.update_kwarg(name, merged)


def _merge(graph: fx.Graph, node: fx.Node, present: Any, old: Any, new: Any) -> Any:
    if isinstance(new, (list, tuple)):
        pairs = zip(present, old, new, strict=True)
        return [_merge(graph, node, p, o, n) for p, o, n in pairs]
    if old == new or (isinstance(present, int) and present == -1):
        return present
    if isinstance(present, fx.Node):
        with graph.inserting_before(node):
            scaled = graph.call_function(operator.mul, (present, new))
            return graph.call_function(operator.floordiv, (scaled, old))
    return new


def _attributes(
    source: fx.GraphModule, kept: dict[str, dict[int, NDArray[np.int64]]], tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the graph reads, sliced; a tensor known under two names stays one tensor."""
    done: dict[int, Any] = {}
    found: dict[str, Any] = {}
    by_identity = {id(attribute(source, name)): dims for name, dims in kept.items()}
    for node in source.graph.nodes:
        if node.op != "get_attr":
            continue
        original = attribute(source, node.target)
        if id(original) not in done:
            own = tensors.get(str(node.target), original)
            done[id(original)] = _sliced(own, by_identity.get(id(original)))
        found[node.target] = done[id(original)]
    return found


def _sliced(original: Any, dims: dict[int, NDArray[np.int64]] | None) -> Any:
    if dims is None or not isinstance(original, Tensor):
        return original
    smaller = slice_tensor(original.detach(), dims)
    if isinstance(original, nn.Parameter):
        return nn.Parameter(smaller, requires_grad=original.requires_grad)
    return smaller


def _renumber(coupling: Coupling, kept: Kept, tensors: dict[str, Any]) -> None:
    """Let sliced lists of indices (:mod:`compress.graph.lists`) count what is left of the features they name."""
    for node, call in coupling.flow.calls.items():
        if call.op != "aten::index_select" or call["index"].index is None:
            continue
        source, dim = call["self"], call["dim"] % call["self"].rank
        stays = kept.vector(source, dim)
        if not stays.all():
            name = str(bind(node.target, node.args, node.kwargs)["index"].target)
            position = torch.as_tensor(np.cumsum(stays) - 1, device=tensors[name].device)
            tensors[name] = position[tensors[name]]
