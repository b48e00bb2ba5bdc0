"""Constants that a removed unit puts out, moved into the layers behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.calls import bind, op_name
from compress.graph.constants import LAYERS, Call, Facts, Read
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules import Kept
from compress.graph.slice import attribute
from compress.graph.unread import removed_channels

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """What of a layer takes over a constant.

    Attributes:
        kind: The layer's own bias; the running mean of the batch norm behind a layer that has none; a new bias.
        name: Of the tensor, or of the one to make.
        weight: Name of the layer's weight.
    """

    kind: Literal["bias", "mean", "new"]
    name: str
    weight: str


Places = Mapping[fx.Node, Place]


@dataclass(frozen=True)
class Carried:
    """A network in which layers no longer need the constants they read.

    Attributes:
        tensors: All its parameters and buffers by name, of unchanged shapes.
        biases: By layer node's name, the bias to add to a layer that has none, (outputs,).
        units: By group the units whose constants were moved.
    """

    tensors: Mapping[str, Any]
    biases: Mapping[str, Tensor]
    units: Mapping[str, Ints]


def places(coupling: Coupling) -> dict[fx.Node, Place]:
    """The layers that can take over a constant: without zero padding, where it would be another at the edges."""
    module = coupling.program.module
    uses: Counter[int] = Counter()  # by identity: tied tensors have several names
    for node in module.graph.nodes:
        if node.op == "get_attr":
            uses[id(attribute(module, str(node.target)))] += len(node.users)
    found = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and op_name(node.target) in LAYERS:
            place = _place(module, node, uses)
            if place is not None:
                found[node] = place
    return found


def _place(module: fx.GraphModule, node: fx.Node, uses: Counter[int]) -> Place | None:
    args = bind(node.target, node.args, node.kwargs)
    weight, bias, padding = args["weight"], args.get("bias"), args.get("padding", 0)
    if weight.op != "get_attr" or isinstance(padding, str) or np.any(padding):
        return None

    def alone(each: Any) -> bool:
        return each.op == "get_attr" and uses[id(attribute(module, str(each.target)))] == 1

    name = str(weight.target)
    if bias is not None:
        return Place("bias", str(bias.target), name) if alone(bias) else None
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is not None and reader.op == "call_function" and op_name(reader.target) == "aten::batch_norm":
        norm = bind(reader.target, reader.args, reader.kwargs)
        mean = norm["running_mean"]
        if norm["input"] is node and not norm["training"] and mean is not None and alone(mean):
            return Place("mean", str(mean.target), name)
    new = name.removesuffix("weight") + "bias" if name.endswith("weight") else f"{name}_bias"
    taken = uses[id(attribute(module, name))] > 1 or _present(module, new)
    return Place("new", f"{node.name}_bias" if taken else new, name)


def _present(module: fx.GraphModule, name: str) -> bool:
    owner = module.get_submodule(name.rpartition(".")[0])
    return hasattr(owner, name.rpartition(".")[2])


def carried(
    coupling: Coupling, facts: Facts, where: Places, dead: Mapping[str, Ints], tensors: Mapping[str, Any]
) -> Carried:
    """Let every layer take over the constants of the dead units it reads.

    Args:
        coupling: The analysed network.
        facts: What is known of it.
        where: The layers that can.
        dead: By group the units that go.
        tensors: Parameters and buffers by name, float64; left as they are.
    """
    kept = Kept(coupling.alive(dead))
    found, biases, units = dict(tensors), {}, []
    cleared: dict[str, Tensor] = {}
    for call in facts.calls:
        place = where.get(call.node)
        if place is None:
            continue
        read: Read = call.args["input"]
        value = coupling.flow.values[read.node]
        value = value[read.index or 0] if isinstance(value, (tuple, list)) else value
        gone = removed_channels(call, kept, value)
        steady = facts.steady[call.node]
        moved = gone & ~steady.isnan() & (steady != 0)
        if not bool(moved.any()):
            continue
        weight = tensors[place.weight]
        shift = _shift(weight, torch.where(moved, steady, 0.0), call.args.get("groups", 1))
        cleared[place.weight] = cleared.get(place.weight, torch.zeros_like(moved)) | moved
        units.append(_units(coupling, value, call, moved))
        if place.kind == "new":
            biases[call.node.name] = shift
        else:
            found[place.name] = found[place.name] + (shift if place.kind == "bias" else -shift)
    for name, channels in cleared.items():
        found |= dict.fromkeys(_same(tensors, name), _without(tensors[name], channels))
    return Carried(found, biases, _by_group(coupling, units))


def _same(tensors: Mapping[str, Any], name: str) -> list[str]:
    return [other for other, tensor in tensors.items() if tensor is tensors[name]]


def _shift(weight: Tensor, constants: Tensor, groups: int) -> Tensor:
    """What a layer adds to its outputs, (outputs,), for constants at its inputs, (inputs,)."""
    summed = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    return (summed.unflatten(0, (groups, -1)) @ constants.reshape(groups, -1, 1)).flatten()


def _without(weight: Tensor, channels: Tensor) -> Tensor:
    """The weight with zeros where it reads the given input channels."""
    groups = len(channels) // weight.shape[1]
    stays = ~channels.reshape(groups, 1, -1, *(1,) * (weight.dim() - 2))
    return (weight.unflatten(0, (groups, -1)) * stays).flatten(0, 1)


def _units(coupling: Coupling, value: Value, call: Call, channels: Tensor) -> Ints:
    axis = value.rank - 1 if call.op == "aten::linear" else 1
    index = np.flatnonzero(channels.numpy())
    labels = [np.take(f.labels, index, axis=f.axis).ravel() for f in value.factors if f.axis == axis]
    return coupling.classes.units_of(np.unique(np.concatenate(labels)))[1]


def _by_group(coupling: Coupling, units: list[Ints]) -> dict[str, Ints]:
    moved = np.unique(np.concatenate(units)) if units else np.zeros(0, dtype=np.int64)
    found = {g.name: np.flatnonzero(np.isin(g.units, moved)) for g in coupling.groups}
    return {name: each for name, each in found.items() if len(each)}


def add_biases(
    module: fx.GraphModule,
    moved: Carried,
    where: Places,
    kept: Mapping[str, Mapping[int, Ints]],
) -> fx.GraphModule:
    """Give layers that had no bias the one that they need now, in place.

    Args:
        module: A slice of the network, or a copy.
        moved: The biases.
        where: How they are called.
        kept: What the slice kept of each tensor.
    """
    if not moved.biases:
        return module
    nodes = {n.name: n for n in module.graph.nodes}
    by_name = {n.name: place for n, place in where.items()}
    for name, bias in moved.biases.items():
        place, node = by_name[name], nodes[name]
        rows = kept.get(place.weight, {}).get(0)
        value = bias if rows is None else bias[torch.as_tensor(rows)]
        owner = module.get_submodule(place.name.rpartition(".")[0])
        setattr(owner, place.name.rpartition(".")[2], nn.Parameter(value, requires_grad=False))
        with module.graph.inserting_before(node):
            new = module.graph.get_attr(place.name)
        node.args = (*node.args[:2], new, *node.args[3:])
        node.kwargs = {k: v for k, v in node.kwargs.items() if k != "bias"}
    module.recompile()
    return module
