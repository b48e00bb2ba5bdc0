"""A graph to write on."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx

from compress.graph import attribute


def own_copy(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose tensors may be written without touching the original's."""
    graph = copy.deepcopy(module.graph)
    tensors: dict[int, Any] = {}
    attributes: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            if id(value) not in tensors:
                tensors[id(value)] = copy.deepcopy(value)
            attributes[str(node.target)] = tensors[id(value)]
    return fx.GraphModule(attributes, graph, class_name="Network")
