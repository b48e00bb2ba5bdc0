"""Operators of ONNX Runtime's own domain, which its optimiser writes for inference on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.operators.convolution import conv
from compress.checkpoint.onnx.registry import Node, Untranslatable, operator

DOMAIN = "com.microsoft"
_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x, "Relu": F.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid,
    "LeakyRelu": F.leaky_relu, "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha, beta: (x * alpha + beta).clamp(0, 1),
}  # fmt: skip


@operator("Gelu", domain=DOMAIN)
def gelu(node: Node, operands: list[Any]) -> Tensor:
    return F.gelu(operands[0])


@operator("BiasGelu", domain=DOMAIN)
def bias_gelu(node: Node, operands: list[Any]) -> Tensor:
    return F.gelu(operands[0] + operands[1])


@operator("FastGelu", domain=DOMAIN)
def fast_gelu(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0] + operands[1] if len(operands) > 1 and operands[1] is not None else operands[0]
    return F.gelu(x, approximate="tanh")


@operator("QuickGelu", domain=DOMAIN)
def quick_gelu(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    return x * torch.sigmoid(x * node.get("alpha", 1.702))


@operator("FusedMatMul", domain=DOMAIN)
def fused_matmul(node: Node, operands: list[Any]) -> Tensor:
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        raise Untranslatable("it transposes the batch")
    a, b = operands
    a = a.transpose(-1, -2) if node.get("transA", 0) else a
    b = b.transpose(-1, -2) if node.get("transB", 0) else b
    alpha = node.get("alpha", 1.0)
    return torch.matmul(a, b) if alpha == 1 else torch.matmul(a, b) * alpha


@operator("FusedConv", domain=DOMAIN)
def fused_conv(node: Node, operands: list[Any]) -> Tensor:
    """A convolution, something of its shape added to it, and an activation."""
    kind = node.get("activation", "")
    if kind not in _ACTIVATIONS:
        raise Untranslatable(f"the activation {kind}")
    found = conv(replace(node, kind="Conv", domain=""), operands[:3])
    if len(operands) > 3 and operands[3] is not None:
        found = found + operands[3]
    return _ACTIVATIONS[kind](found, *(node.get("activation_params") or []))


@operator("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_norm(node: Node, operands: list[Any]) -> tuple[Tensor, ...]:
    """The norm of a sum; the fourth output is the sum."""
    x, skip, scale, *rest = operands
    shift, bias = (*rest, None, None)[:2]
    total = x + skip if bias is None else x + skip + bias
    if any(node.outputs[1:3]):
        raise Untranslatable("its mean or deviation is used as an output")
    found = F.layer_norm(total, [total.shape[-1]], scale, shift, node.get("epsilon", 1e-5))
    return (found, found, found, total)
