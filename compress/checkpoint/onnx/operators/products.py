"""Products of matrices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, operator

LINEAR = ("compress", "Linear")  # an own operator: what a product with a constant, and its bias, are turned into


@operator(LINEAR[1], domain=LINEAR[0])
def linear(node: Node, operands: list[Any]) -> Tensor:
    """x @ weight.T + bias, with a weight (out, in)."""
    x, weight, *rest = operands
    return F.linear(x, weight, rest[0] if rest else None)


@operator("Gemm")
def gemm(node: Node, operands: list[Any]) -> Tensor:
    """alpha A' B' + beta C."""
    a, b, *rest = operands
    a = a.t() if node.get("transA", 0) else a
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if node.get("transB", 0) and alpha == 1 and not rest:
        return F.linear(a, b)
    found = a @ (b.t() if node.get("transB", 0) else b)
    found = found if alpha == 1 else found * alpha
    if not rest or rest[0] is None:
        return found
    return found + (rest[0] if beta == 1 else rest[0] * beta)


@operator("MatMul")
def matmul(node: Node, operands: list[Any]) -> Tensor:
    return torch.matmul(*operands)


@operator("Einsum")
def einsum(node: Node, operands: list[Any]) -> Tensor:
    return torch.einsum(node.attributes["equation"].replace(" ", ""), *operands)
