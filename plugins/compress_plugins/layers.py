"""What a traced graph says of its layers: which node is what, who reads it, and what can take over a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Group, Member

Where = Literal["before", "after"]

# Dims behind the units in what a layer gives, by operation
LAYERS = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}
_ACTIVATIONS = frozenset(
    {
        *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu"),
        *("relu6", "selu", "sigmoid", "silu", "softplus", "tanh"),
    }
)


def op(node: fx.Node) -> str:
    """``relu`` for a call of aten.relu.default; "" for nodes that are no such call."""
    parts = str(node.target).split(".")
    return parts[1] if node.op == "call_function" and len(parts) == 3 else ""


def parameter(network: fx.GraphModule, node: object) -> str | None:
    """The name of a parameter that only one operation reads."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or len(node.users) != 1:
        return None
    name = str(node.target)
    owner, _, last = name.rpartition(".")
    return name if isinstance(getattr(network.get_submodule(owner), last), nn.Parameter) else None


def weight(network: fx.GraphModule, node: fx.Node) -> str | None:
    """The name of the weight of a linear layer or convolution, if nothing else reads it."""
    return parameter(network, node.args[1]) if op(node) in LAYERS else None


def layer_nodes(network: fx.GraphModule) -> dict[str, fx.Node]:
    """Linear layers and convolutions by the names of their weights."""
    return {name: node for node in network.graph.nodes if (name := weight(network, node)) is not None}


def makers(context: Context, group: Group) -> list[Member]:
    """The weights whose outputs a group's units are."""
    return [m for m in context.producers(group) if context.weight(m.tensor).dim() > 1]


@dataclass(frozen=True)
class Place:
    """Where a factor stands.

    Attributes:
        node: Name of the node whose result it multiplies.
        rows: Parameters that can take it over along dim 0.
        columns: Weights of layers that can take it over along dim 1.
        trailing: Dims behind the units.
    """

    node: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    trailing: int


def place_of(network: fx.GraphModule, layer: fx.Node, where: Where) -> Place:
    """Behind a layer and the batch norm that alone reads it; "after" also behind the activation that alone reads these.

    An activation is looked for where it is the only reader; where there is none, after is before.
    """
    trailing, node = LAYERS[op(layer)], layer
    if op(_reader(node)) == "batch_norm":
        node = _reader(node)
    if where == "after" and op(_reader(node)).rstrip("_") in _ACTIVATIONS:
        node = _reader(node)
        return Place(node.name, (), _columns(network, node, trailing), trailing)
    return Place(node.name, rows(network, node), (), trailing)


def _reader(node: fx.Node) -> fx.Node:
    """The only reader of a node; the node itself where there are several."""
    return next(iter(node.users)) if len(node.users) == 1 else node


def rows(network: fx.GraphModule, node: fx.Node) -> tuple[str, ...]:
    """Weight and bias of the layer or batch norm that a node is, if nothing else reads them."""
    if op(node) not in LAYERS and op(node) != "batch_norm":
        return ()
    tensors = [arg for arg in node.args[1:3] if arg is not None]
    names = [name for arg in tensors if (name := parameter(network, arg)) is not None]
    return tuple(names) if len(names) == len(tensors) else ()


def _columns(network: fx.GraphModule, node: fx.Node, trailing: int) -> tuple[str, ...]:
    """Weights of the layers that read a node, if nothing else does; those of convolutions in groups are narrower."""
    found = [weight(network, user) if user.args[0] is node else None for user in node.users]
    names = [name for name in found if name is not None]
    width = shape(node)[-1 - trailing]
    fits = all(network.get_parameter(name).shape[1] == width for name in names)
    return tuple(names) if names and len(names) == len(found) and fits else ()


def shape(node: fx.Node) -> tuple[int, ...]:
    """Of what a node gives for the example."""
    return tuple(node.meta["val"].shape)


def take_over(
    network: fx.GraphModule, place: Place, value: Tensor, name: str, users: Sequence[fx.Node] | None = None
) -> None:
    """Multiply by a factor for good: in the parameters beside it, or by an operation that stays in the network.

    Args:
        network: Changed in place, to be compiled again.
        place: Where the factor stands.
        value: One for each unit, (units,), or one for all, ().
        name: Of the parameter that an operation needs.
        users: Readers of the node that get the product; all if left out.
    """
    with torch.no_grad():
        for dim, names in enumerate((place.rows, place.columns)):
            for each in names:
                tensor = network.get_parameter(each)
                tensor.mul_(value.reshape([-1 if d == dim else 1 for d in range(tensor.dim())]))
    if place.rows or place.columns:
        return
    node = next(n for n in network.graph.nodes if n.name == place.node)
    network.register_parameter(name, nn.Parameter(value.reshape(-1, *[1] * place.trailing) if value.dim() else value))
    with network.graph.inserting_after(node):
        factor = network.graph.get_attr(name)
    with network.graph.inserting_after(factor):
        made = network.graph.call_function(torch.ops.aten.mul.Tensor, (node, factor))
    for user in [u for u in node.users if u is not made] if users is None else users:
        user.replace_input_with(node, made)


def copy_tensors(source: fx.GraphModule, target: fx.GraphModule) -> None:
    """Give one network the tensors that another has under the same names."""
    tensors = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    with torch.no_grad():
        for name, tensor in (*target.named_parameters(), *target.named_buffers()):
            tensor.copy_(tensors[name])
