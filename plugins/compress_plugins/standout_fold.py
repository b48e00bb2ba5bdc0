"""What is left of standout's gates in the network that is sliced: the exact gate, or its mean as a constant."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from compress_plugins.standout_gate import Gate, gates, means

aten = torch.ops.aten
_BATCH = 256
_SCALED = {  # layers that may take a factor for each of their inputs into their weight, along dim 1
    aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
}  # fmt: skip


def fold_exactly(network: fx.GraphModule) -> fx.GraphModule:
    """A copy with every gate as operations: g(u) sigmoid(alpha u + shift), shift_j = beta - alpha b_j.

    The layer's weight serves both; a buffer (units,) beside it holds the shifts. With beta weighed by the input,
    shift_j = -alpha b_j, and beta times the sum of the inputs is added. A convolution's u is averaged over space first.
    """
    network = copy.deepcopy(network).eval()
    for node, gate in _calls(network):
        with network.graph.inserting_before(node):
            p = network.graph.call_function(aten.sigmoid.default, (_exponent(network, node, gate),))
            _replace(node, network.graph.call_function(aten.mul.Tensor, (node.args[0], p)))
    return _cleaned(network)


def fold_to_means(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> fx.GraphModule:
    """A copy with every gate replaced by its mean: scaled columns of the layers that read it, or a vector.

    Args:
        network: With gates.
        kept: By gate the mean retention, (units,).
    """
    network = copy.deepcopy(network).eval()
    for node, gate in _calls(network):
        a, mean = node.args[0], kept[str(node.target)]
        readers = list(_readers(node))
        weights = [_own_weight(reader, previous) for reader, previous in readers]
        if all(weights):
            with torch.no_grad():
                for name in dict.fromkeys(weights):
                    weight = network.get_parameter(name)
                    weight.mul_(mean.to(weight).view(1, -1, *[1] * (weight.dim() - 2)))
            _replace(node, a)
            continue
        with network.graph.inserting_before(node):
            shaped = mean.view(-1, *[1] * (_rank(a) - 2)) if gate.channels else mean
            name = f"standout_mean{str(node.target).removeprefix('standout')}"  # two uses of a layer have two means
            factor = _buffer(network, node, name, shaped.to(a.meta["val"].dtype))  # type: ignore[union-attr]
            _replace(node, network.graph.call_function(aten.mul.Tensor, (a, factor)))
    return _cleaned(network)


def mean_retention(network: fx.GraphModule, inputs: Tensor) -> dict[str, Tensor]:
    """By gate the mean of p over inputs, (units,), in evaluation."""
    network = copy.deepcopy(network).eval()
    for gate in gates(network).values():
        gate.take()
        gate.counts = "always"
    scores(network, inputs)
    return {name: means(gate.take())[0] for name, gate in gates(network).items()}


def scores(network: fx.GraphModule, inputs: Tensor) -> Tensor:
    """What a network gives for inputs; of several outputs the first."""
    with torch.no_grad():
        return torch.cat([tree_leaves(network(part.clone()))[0] for part in inputs.split(_BATCH)])


@dataclass(frozen=True)
class Loss:
    """What folding to means costs.

    Attributes:
        relative: Root of the summed squares of the differences of all scores over that of the scores.
        changed: Share of samples of another class.
        samples: How many were looked at.
    """

    relative: float
    changed: float
    samples: int


def loss_of(exact: fx.GraphModule, folded: fx.GraphModule, inputs: Tensor) -> Loss:
    """The error of a folded network on inputs; ``exact`` is in evaluation."""
    one, other = scores(exact, inputs), scores(folded, inputs)
    relative = float((one - other).norm() / one.norm().clamp(min=1e-30))
    return Loss(relative, float((one.argmax(1) != other.argmax(1)).float().mean()), len(inputs))


def _calls(network: fx.GraphModule) -> list[tuple[fx.Node, Gate]]:
    found = gates(network)
    return [(n, found[str(n.target)]) for n in network.graph.nodes if n.op == "call_module" and n.target in found]


def _exponent(network: fx.GraphModule, node: fx.Node, gate: Gate) -> fx.Node:
    """alpha u + beta - alpha b, of which the part that does not depend on the input is a buffer."""
    _, u, *more = node.args
    graph, setting = network.graph, gate.setting
    if gate.channels:
        u = graph.call_function(aten.mean.dim, (u, list(range(2, _rank(node.args[1]))), True))
    total = graph.call_function(aten.mul.Tensor, (u, setting.alpha))
    start = 0.0 if setting.by_input else setting.beta
    if gate.has_bias:
        bias = network.get_parameter(str(more[0].target)).detach()  # type: ignore[union-attr]
        shift = start - setting.alpha * bias
        shaped = shift.view(-1, *[1] * (_rank(node.args[1]) - 2)) if gate.channels else shift
        total = graph.call_function(aten.add.Tensor, (total, _buffer(network, node, "standout_shift", shaped)))
    elif not setting.by_input:
        total = graph.call_function(aten.add.Tensor, (total, start))
    if setting.by_input:
        summed = graph.call_function(aten.sum.dim_IntList, (more[-1], [-1], True))
        total = graph.call_function(
            aten.add.Tensor, (total, graph.call_function(aten.mul.Tensor, (summed, setting.beta)))
        )
    return total


def _rank(node: Any) -> int:
    return len(node.meta["val"].shape)


def _buffer(network: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> fx.Node:
    """A buffer beside the weight of the gate's layer, and the node that reads it; two uses of a layer share one."""
    layer = str(node.args[1].args[1].target).rpartition(".")[0]  # type: ignore[union-attr]
    owner = network.get_submodule(layer)
    if name not in dict(owner.named_buffers(recurse=False)):
        owner.register_buffer(name, value.clone())
    return network.graph.get_attr(f"{layer}.{name}".lstrip("."))


def _replace(node: fx.Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _cleaned(network: fx.GraphModule) -> fx.GraphModule:
    for name in gates(network):
        delattr(network, name)
    network.recompile()
    return network


def _readers(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Who reads a node, through dropouts, and which of its arguments that is."""
    for user in node.users:
        if user.target is aten.dropout.default:
            yield from _readers(user)
        else:
            yield user, node


def _own_weight(reader: fx.Node, read: fx.Node) -> str:
    """The weight of a layer that can take a factor for each of its inputs; "" where there is none of its own."""
    if reader.target not in _SCALED or reader.args[0] is not read:
        return ""
    weight = reader.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) > 1:
        return ""
    grouped = reader.target is not aten.linear.default and reader.args[6:7] not in ((), (1,))
    return "" if grouped else str(weight.target)
