"""The analysis of one network, valid for another of the same graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from compress.graph.groups import Coupling
from compress.graph.trace import attribute


def with_tensors(coupling: Coupling, network: fx.GraphModule) -> Coupling:
    """The same analysis with copies, on the CPU, of the tensors that another network has under the same names.

    What is known of a graph depends on the shapes of its tensors, not on their values, so nothing is analysed anew.
    """
    source = coupling.program.module
    tensors: dict[str, Any] = {}
    copies: dict[int, Any] = {}  # a tensor known under two names stays one
    for node in source.graph.nodes:
        if node.op == "get_attr":
            own, other = attribute(source, node.target), attribute(network, node.target)
            if id(other) not in copies:
                copies[id(other)] = _copied(own, other)
            tensors[node.target] = copies[id(other)]
    return replace(coupling, program=replace(coupling.program, module=fx.GraphModule(tensors, source.graph)))


def _copied(own: Any, other: Any) -> Any:
    if not isinstance(other, Tensor):
        return other
    value = other.detach().to("cpu", copy=True)
    return nn.Parameter(value, own.requires_grad) if isinstance(own, nn.Parameter) else value
