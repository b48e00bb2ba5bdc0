"""Shortcuts: what is added to the output of a layer, and what lies on the way there."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, fx

from compress.calibration.layers import Layers, op_of
from compress.recover.window import ADD, THROUGH


def shortcut(layers: Layers, node: fx.Node, known: Container[str]) -> tuple[fx.Node, Tensor | float] | None:
    """The other summand where the layer's output is added to one, and the scale on the way there.

    Args:
        layers: Of the network.
        node: One of its layers.
        known: Names of nodes that may be the other summand.
    """
    scale: Tensor | float = 1.0
    while len(node.users) == 1:
        user = next(iter(node.users))
        op = op_of(user)
        if op in ADD and not user.kwargs:
            others = [a for a in user.args if a is not node]
            if len(others) != 1 or len(user.args) != 2 or not isinstance(others[0], fx.Node):
                return None
            return (others[0], scale) if _is_activation(others[0], known) else None
        if op == "aten::batch_norm" and user.args[0] is node and not user.args[5]:
            scale = _norm_scale(layers, user, scale)
        elif op not in THROUGH:
            return None
        node = user
    return None


def _is_activation(node: fx.Node, known: Container[str]) -> bool:
    return node.op == "call_function" and node.name in known and not _constant(node)


def _constant(node: fx.Node) -> bool:
    """Whether nothing but parameters goes into a node."""
    sources = list(node.all_input_nodes)
    return bool(sources) and all(s.op == "get_attr" for s in sources)


def _norm_scale(layers: Layers, node: fx.Node, scale: Tensor | float) -> Tensor:
    weight, variance, eps = node.args[1], node.args[4], node.args[7]
    gain: Any = 1.0 if weight is None else layers.tensor(weight).detach()
    factor = gain / torch.sqrt(layers.tensor(variance) + eps)
    factor = torch.where(factor.abs() < 1e-6, torch.full_like(factor, float("inf")), factor)
    spatial = len(node.meta["val"].shape) - 2 if "val" in node.meta else 2
    return scale * factor.reshape(1, -1, *(1,) * spatial)
