"""A traced network in training: what depends on the mode is a constant in its graph, so there are two graphs of it.

Both read the same parameters and buffers. In the one for training, batch norm uses and updates the statistics of the
batch, and dropout drops. Attention dropout and skipped layers (stochastic depth) leave no trace in a network that was
traced for inference, and stay off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, fx, nn

from compress.graph.calls import op_name

Forward = Callable[..., Any]

_FLAGS = ("training", "train", "use_input_stats")  # of batch_norm; dropout, lstm; instance_norm
_MOMENTUM = 0.1  # PyTorch's own, for norms that average over all batches (momentum=None), which a graph cannot
aten = torch.ops.aten


class Modes(nn.Module):
    """A network that heeds ``train()`` and ``eval()``.

    Args:
        network: Traced in eval mode; its tensors are used, not copied.
        processes: Where above 1, batch norm takes its statistics over the batches of all processes.
        features: Names of nodes whose values the forward returns as well in training: ``(output, [value, ...])``.
    """

    def __init__(self, network: fx.GraphModule, processes: int = 1, features: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self._in_training = forward_of(network, train_graph(network, processes > 1, features))

    def forward(self, *inputs: Tensor) -> Any:
        return self._in_training(self.network, *inputs) if self.training else self.network(*inputs)


def forward_of(network: fx.GraphModule, graph: fx.Graph) -> Forward:
    """A function ``(network, *inputs)`` that runs another graph on the tensors of a network."""
    forward: Forward = type(fx.GraphModule(network, graph)).forward
    return forward


def train_graph(network: fx.GraphModule, synced: bool = False, features: Sequence[str] = ()) -> fx.Graph:
    """The graph of a network in training mode; see `Modes`."""
    graph = copied(network, features)
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _set_training(node)
            if synced and node.target is aten.batch_norm.default:
                node.target = synced_batch_norm
    graph.lint()
    return graph


def copied(network: fx.GraphModule, features: Sequence[str] = ()) -> fx.Graph:
    """A copy of a network's graph that returns the values of some nodes as well."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(network.graph, mapping)
    named = {node.name: copy for node, copy in mapping.items()}
    # The nesting of outputs that a graph may have takes the plain output alone
    graph.output((output, [named[name] for name in features]) if features else output)
    if not features:
        graph.set_codegen(network.graph._codegen)
    return graph


def _set_training(node: fx.Node) -> None:
    if node.target is aten._native_batch_norm_legit_no_training.default:  # in programs that were decomposed
        node.target = aten._native_batch_norm_legit.default
        node.args = (*node.args[:5], True, *node.args[5:])
    schema = node.target._schema  # type: ignore[union-attr]
    for position, argument in enumerate(schema.arguments):
        if argument.name in _FLAGS and str(argument.type) == "bool":
            _set(node, position, argument.name, True)
        if argument.name == "momentum" and "batch_norm" in op_name(node.target) and _given(node, position) == 0.0:
            _set(node, position, argument.name, _MOMENTUM)


def _given(node: fx.Node, position: int) -> Any:
    return node.args[position] if position < len(node.args) else None


def _set(node: fx.Node, position: int, name: str, value: Any) -> None:
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def synced_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """``aten::batch_norm`` in training, with the statistics of the batches of all processes together; any device.

    Args:
        x: (N, C, ...); N may differ between processes.
        weight, bias, running_mean, running_var: (C,).
    """
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    local = torch.full((1,), wide.numel() // wide.shape[1], dtype=wide.dtype, device=wide.device)
    sums = _all_reduced(torch.cat((wide.sum(dims), local)))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean.reshape(shape)
    variance = _all_reduced(centred.square().sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    y = centred * (variance + eps).rsqrt().reshape(shape)
    if weight is not None:
        y = y * weight.reshape(shape)
    if bias is not None:
        y = y + bias.reshape(shape)
    return y.to(x.dtype)


def _all_reduced(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total
