"""Reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, axis_of, given, operator

_Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]

_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


@operator(*_REDUCTIONS, numbers=(1,))
def reduced(node: Node, operands: list[Any]) -> Tensor:
    """Axes are an attribute in older opsets, an input in newer ones; none are all, or none at all if so asked."""
    x = operands[0]
    axes = given(node, operands, 1, "axes")
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    dims = tuple(axis_of(axis, x.dim()) for axis in axes) if axes else tuple(range(x.dim()))
    return _REDUCTIONS[node.kind](x, dims, bool(node.get("keepdims", 1))) if dims else x


@operator("ReduceProd", numbers=(1,))
def product(node: Node, operands: list[Any]) -> Tensor:
    x, axes = operands[0], given(node, operands, 1, "axes")
    keep = bool(node.get("keepdims", 1))
    for axis in sorted((axis_of(a, x.dim()) for a in (axes or range(x.dim()))), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


@operator("ArgMax", "ArgMin")
def position(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    run = torch.argmax if node.kind == "ArgMax" else torch.argmin
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    if not node.get("select_last_index", 0):
        return run(x, axis, keep)
    return x.shape[axis] - 1 - run(x.flip(axis), axis, keep)


@operator("TopK", numbers=(1,))
def top(node: Node, operands: list[Any]) -> tuple[Tensor, Tensor]:
    k = given(node, operands, 1, "k") or [1]
    return torch.topk(
        operands[0], k[0], node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    )


@operator("CumSum", numbers=(1,))
def running_sum(node: Node, operands: list[Any]) -> Tensor:
    x, axis = operands[0], int(operands[1])
    turned = x.flip(axis) if node.get("reverse", 0) else x
    found = turned.cumsum(axis, dtype=x.dtype)
    found = found - turned if node.get("exclusive", 0) else found
    return found.flip(axis) if node.get("reverse", 0) else found
