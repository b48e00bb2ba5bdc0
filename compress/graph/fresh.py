"""Weights drawn anew, for training a network from scratch: a graph no longer knows the classes that would do it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from compress.graph.calls import bind
from compress.graph.cost import layer_weights
from compress.graph.groups import Coupling
from compress.graph.operands import output_dims
from compress.graph.trace import attribute

_STARTS = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}  # of normalisations


def fresh_tensors(coupling: Coupling, generator: torch.Generator) -> tuple[dict[str, Tensor], list[str]]:
    """What PyTorch's layers start with, for all parameters of layers and normalisations.

    Weights and biases of linear layers, convolutions and matrix products are uniform within 1 / sqrt(inputs of an
    output), normalisations do nothing, embeddings are standard normal.

    Args:
        coupling: The analysed network; it is not changed.
        generator: What the numbers are drawn from.

    Returns:
        New tensors by name, and the names of the parameters for which no start is known (a learned position, a scale).
    """
    module, outputs = coupling.program.module, output_dims(coupling)
    bounds = {}
    for name in layer_weights(coupling):
        weight: Tensor = attribute(module, name)
        bounds[name] = 1 / math.sqrt(max(1, weight.numel() // weight.shape[outputs.get(name, 0)]))
    found: dict[str, Tensor] = {}
    for node, call in coupling.flow.calls.items():
        named = {
            role: str(value.target)
            for role, value in bind(node.target, node.args, node.kwargs).items()
            if isinstance(value, fx.Node) and value.op == "get_attr"
        }
        widest = max((bounds[name] for name in named.values() if name in bounds), default=None)
        for role, name in named.items():
            if name in found:
                continue
            tensor = attribute(module, name)
            if "norm" in call.op and role in _STARTS:
                found[name] = torch.full_like(tensor, _STARTS[role], requires_grad=False)
            elif call.op == "aten::embedding" and role == "weight":
                found[name] = torch.empty_like(tensor, requires_grad=False).normal_(generator=generator)
            elif widest is not None and isinstance(tensor, nn.Parameter):
                bound = bounds.get(name, widest)
                found[name] = torch.empty_like(tensor, requires_grad=False).uniform_(-bound, bound, generator=generator)
    return found, [name for name, _ in module.named_parameters() if name not in found]
