"""Activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, axis_of, operator


@operator("Relu")
def relu(node: Node, operands: list[Any]) -> Tensor:
    return F.relu(operands[0])


@operator("Sigmoid")
def sigmoid(node: Node, operands: list[Any]) -> Tensor:
    return torch.sigmoid(operands[0])


@operator("Tanh")
def tanh(node: Node, operands: list[Any]) -> Tensor:
    return torch.tanh(operands[0])


@operator("LeakyRelu")
def leaky_relu(node: Node, operands: list[Any]) -> Tensor:
    return F.leaky_relu(operands[0], node.get("alpha", 0.01))


@operator("PRelu")
def prelu(node: Node, operands: list[Any]) -> Tensor:
    """A slope per channel, as (C, 1, 1) or (1), or any that broadcasts."""
    x, slope = operands
    channels = slope.numel() == 1 or (x.dim() > 2 and slope.numel() == x.shape[1] == slope.shape[1 - x.dim()])
    if channels and slope.dim() < x.dim():
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(node: Node, operands: list[Any]) -> Tensor:
    return F.elu(operands[0], node.get("alpha", 1.0))


@operator("Selu")
def selu(node: Node, operands: list[Any]) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return gamma * F.elu(operands[0], alpha)


@operator("Celu")
def celu(node: Node, operands: list[Any]) -> Tensor:
    return F.celu(operands[0], node.get("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, operands: list[Any]) -> Tensor:
    return F.threshold(operands[0], node.get("alpha", 1.0), 0.0)


@operator("Softplus")
def softplus(node: Node, operands: list[Any]) -> Tensor:
    return F.softplus(operands[0])


@operator("Softsign")
def softsign(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    return x / (1 + x.abs())


@operator("HardSigmoid")
def hard_sigmoid(node: Node, operands: list[Any]) -> Tensor:
    """max(0, min(1, alpha x + beta)); PyTorch has the one with alpha = 1 / 6."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(operands[0])
    return (operands[0] * alpha + beta).clamp(0, 1)


@operator("HardSwish")
def hard_swish(node: Node, operands: list[Any]) -> Tensor:
    return F.hardswish(operands[0])


@operator("Mish")
def mish(node: Node, operands: list[Any]) -> Tensor:
    return F.mish(operands[0])


@operator("Swish")
def swish(node: Node, operands: list[Any]) -> Tensor:
    x, alpha = operands[0], node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("Gelu")
def gelu(node: Node, operands: list[Any]) -> Tensor:
    return F.gelu(operands[0], approximate=node.get("approximate", "none"))


@operator("Softmax", "LogSoftmax")
def softmax(node: Node, operands: list[Any]) -> Tensor:
    """Until opset 12 over all dims from ``axis`` on (1 by default), since then over ``axis`` alone (the last)."""
    x, run = operands[0], F.softmax if node.kind == "Softmax" else F.log_softmax
    axis = axis_of(node.get("axis", -1 if node.opset >= 13 else 1), x.dim())
    if node.opset >= 13 or all(size == 1 for size in x.shape[axis + 1 :]):
        return run(x, axis)
    return run(x.flatten(axis), -1).reshape(x.shape)


@operator("Hardmax")
def hardmax(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    axis = axis_of(node.get("axis", -1 if node.opset >= 13 else 1), x.dim())
    flat = x if node.opset >= 13 else x.flatten(axis)
    axis = axis if node.opset >= 13 else flat.dim() - 1
    found = F.one_hot(flat.argmax(axis), flat.shape[axis]).movedim(-1, axis).to(x.dtype)
    return found.reshape(x.shape)
