"""The gate of standout: where it sits in a network, what it does in training, and what is left of it in the result.

Behind the activation g of a layer with pre-activation u = W x + b, unit j is kept with the probability
p_j = sigmoid(alpha (W x)_j + beta) = sigmoid(alpha u_j + beta - alpha b_j). In training a sample of {0, 1} multiplies
g(u_j), for every input and step anew and without a gradient through p; in evaluation p_j does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.plugin import Context, insert_module

aten = torch.ops.aten

_ACTIVATIONS = {
    "celu", "clamp", "clamp_min", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid",
    "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
_NOT_ZERO_AT_ZERO = {"clamp", "clamp_min", "hardsigmoid", "log_sigmoid", "sigmoid", "softplus"}
_BETWEEN = {"batch_norm", "dropout", "feature_dropout", "instance_norm"}  # a layer and its activation
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}


@dataclass(frozen=True)
class Setting:
    """What all gates have in common: see `Standout`."""

    alpha: float
    beta: float
    by_input: bool = False


@dataclass(frozen=True)
class Place:
    """A layer with a gate.

    Attributes:
        name: Of the gate's module in the network.
        weight: The layer's.
        layer, activation: The nodes that compute u and g(u).
        channels: Whether it is a convolution, with one gate for each channel.
        units: By group the rows of the weight that each of its units holds, (units, k).
    """

    name: str
    weight: str
    layer: fx.Node
    activation: fx.Node
    channels: bool
    units: Mapping[str, NDArray[np.int64]]


class Gate(nn.Module):
    """Called with g(u), u, the layer's bias where it has one, and its input where beta is weighed with that.

    Attributes:
        counted: Over all that was seen since `take`: retention (units,), |g(u)| (units,), their number (1,), in one.
        counts: When that is summed: in "training", "always" or "never".
    """

    def __init__(self, setting: Setting, channels: bool, has_bias: bool) -> None:
        super().__init__()
        self.setting, self.channels, self.has_bias = setting, channels, has_bias
        self.counted: Tensor | None = None
        self.counts = "training"

    def forward(self, a: Tensor, u: Tensor, *more: Tensor) -> Tensor:
        with torch.no_grad():
            p = self.retention(u, *more)
            if self.counts == "always" or (self.counts == "training" and self.training):
                self._count(p, a)
            kept = torch.rand_like(p).lt_(p) if self.training else p  # bernoulli takes three times as long
        return a * kept.to(a.dtype)

    def retention(self, u: Tensor, *more: Tensor) -> Tensor:
        """p, of the shape of u (..., units), or (N, channels, 1, ...); in single precision at least."""
        wide = u.float() if u.element_size() < 4 else u
        ones = [1] * (wide.dim() - 2)
        if self.channels:
            wide = wide.mean(tuple(range(2, wide.dim())), keepdim=True)
        setting = self.setting
        if self.has_bias:
            wide = wide - (more[0].view(-1, *ones) if self.channels else more[0])
        beta: Tensor | float = setting.beta
        if setting.by_input:
            beta = beta * more[-1].sum(-1, keepdim=True)
        return torch.sigmoid_(setting.alpha * wide + beta)

    def take(self) -> Tensor:
        """What was counted since the last time; zero where nothing was."""
        counted, self.counted = self.counted, None
        return torch.zeros(()) if counted is None else counted

    def _count(self, p: Tensor, a: Tensor) -> None:
        size = a.abs()
        if self.channels:
            p, size = p.flatten(1), size.flatten(2).mean(2)
        p, size = p.flatten(0, -2), size.flatten(0, -2)
        new = torch.cat((p.sum(0), size.sum(0), p.new_full((1,), len(p)))).double()
        self.counted = new if self.counted is None else self.counted + new


def zero_at_zero(place: Place) -> bool:
    """Whether a layer that gives nothing gives nothing behind its activation, whatever the activation's options."""
    return _op(place.activation).removesuffix("_") not in _NOT_ZERO_AT_ZERO


def means(counted: Tensor) -> tuple[Tensor, Tensor]:
    """From what a gate has counted, the means of p and of |g(u)|, (units,) each."""
    p, size = (counted[:-1] / counted[-1]).chunk(2)
    return p, size


def find(network: fx.GraphModule, context: Context, convolutions: bool) -> list[Place]:
    """Layers that a gate may sit in: their units can be removed, and one activation alone reads them.

    Between the two may be a batch norm or a dropout. Without ``convolutions`` those units are left out that a
    convolution makes as well.

    Args:
        network: A copy of the context's.
        context: The network under analysis.
        convolutions: Whether the channels of convolutions get gates, too.
    """
    rows: dict[str, dict[str, NDArray[np.int64]]] = {}
    for group in context.groups:
        makers = context.producers(group)
        if convolutions or not any(context.weight(m.tensor).dim() > 2 for m in makers):
            for m in makers:
                if m.dim == context.output_dim(m.tensor) == 0 and m.blocks == 1:
                    rows.setdefault(m.tensor, {})[group.name] = m.index
    found: list[Place] = []
    for node in network.graph.nodes:
        kind = _kind(node)
        operand = node.args[1] if kind else None
        weight = str(operand.target) if isinstance(operand, fx.Node) and operand.op == "get_attr" else ""
        activation = _activation(node) if weight in rows else None
        if activation is not None:
            found.append(Place(f"standout_{len(found)}", weight, node, activation, kind == "convolution", rows[weight]))
    return found


def insert(network: fx.GraphModule, place: Place, setting: Setting) -> None:
    """Put a gate behind the activation of a layer."""
    node, layer = place.activation, place.layer
    name = _op(node)
    if name.endswith("_"):  # in place it would write over what the gate reads
        node.target = getattr(aten, name[:-1]).default
    bias = [each for each in layer.args[2:3] if isinstance(each, fx.Node)]
    inputs = [each for each in layer.args[:1] if isinstance(each, fx.Node) and setting.by_input]
    gate = Gate(setting, place.channels, bool(bias)).train(network.training)
    insert_module(network, place.name, gate, node, layer, *bias, *inputs)


def gates(network: fx.GraphModule) -> dict[str, Gate]:
    """By name the gates of a network, in graph order."""
    return {name: module for name, module in network.named_children() if isinstance(module, Gate)}


def _op(node: fx.Node) -> str:
    """The plain name of an operation: ``relu_``."""
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return schema.name.removeprefix("aten::") if schema is not None else ""


def _kind(node: fx.Node) -> str:
    """Of a layer that may have gates; "" for all else."""
    op = _op(node)
    if op == "linear":
        return op
    transposed = op == "convolution" and bool(node.args[6])
    return "convolution" if op in _CONVOLUTIONS and not transposed else ""


def _activation(node: fx.Node) -> fx.Node | None:
    """The activation that alone reads a layer, straight or through what may be between; None if there is none."""
    while len(node.users) == 1:
        (user,) = node.users
        if not user.args or user.args[0] is not node:
            return None
        if _op(user).removesuffix("_") in _ACTIVATIONS:
            return user
        if _op(user) not in _BETWEEN:
            return None
        node = user
    return None
