"""Constant lists of indices by which a network picks features of an activation.

Each entry goes with the feature that it names: the list gets shorter, and the entries that stay count the features that
are left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from compress.graph.calls import bind, op_name
from compress.graph.trace import attribute


def index_lists(module: fx.GraphModule) -> frozenset[str]:
    """The buffers (n,) of whole numbers that one ``index_select`` reads as its index, and nothing else does."""
    found: dict[int, list[str]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            tensor = attribute(module, str(node.target))
            alone = len(node.users) == 1 and _picks(next(iter(node.users)), node)
            plain = isinstance(tensor, torch.Tensor) and tensor.dim() == 1 and tensor.dtype == torch.int64
            found.setdefault(id(tensor), []).append(str(node.target) if alone and plain else "")
    return frozenset(names[0] for names in found.values() if len(names) == 1 and names[0])


def _picks(user: fx.Node, index: fx.Node) -> bool:
    if user.op != "call_function" or op_name(user.target) != "aten::index_select":
        return False
    args: dict[str, Any] = bind(user.target, user.args, user.kwargs)
    return args["index"] is index and args["self"] is not index
