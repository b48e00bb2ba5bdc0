"""Normalisations, as they work after training."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, Untranslatable, axis_of, operator


@operator("BatchNormalization")
def batch_norm(node: Node, operands: list[Any]) -> Tensor:
    x, scale, bias, mean, var = operands
    if node.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise Untranslatable("it is in training mode", "export the model in eval mode")
    if node.get("spatial", 1) != 1:
        raise Untranslatable("statistics per position (spatial=0)")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(node: Node, operands: list[Any]) -> Tensor:
    x, scale, bias = operands
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, operands: list[Any]) -> Tensor:
    """Over the dims from ``axis`` on; a scale that broadcasts along them is applied afterwards."""
    x, scale, *rest = operands
    if len([name for name in node.outputs if name]) > 1:
        raise Untranslatable("its mean or deviation is used as an output")
    shape, bias = list(x.shape[axis_of(node.get("axis", -1), x.dim()) :]), rest[0] if rest else None
    epsilon = node.get("epsilon", 1e-5)
    if list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    found = F.layer_norm(x, shape, None, None, epsilon) * scale
    return found if bias is None else found + bias


@operator("GroupNormalization")
def group_norm(node: Node, operands: list[Any]) -> Tensor:
    """Until opset 20 the scale belongs to groups, since then to channels."""
    x, scale, bias = operands
    groups, epsilon = int(node.attributes["num_groups"]), node.get("epsilon", 1e-5)
    if scale.shape[0] == x.shape[1]:
        return F.group_norm(x, groups, scale, bias, epsilon)
    each = x.shape[1] // groups
    return F.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def rms_norm(node: Node, operands: list[Any]) -> Tensor:
    x, scale = operands[:2]
    shape = list(x.shape[axis_of(node.get("axis", -1), x.dim()) :])
    return F.rms_norm(x, shape, scale, node.get("epsilon", 1e-5))


@operator("LRN")
def local_response_norm(node: Node, operands: list[Any]) -> Tensor:
    """x / (bias + alpha / size * sum of squares over ``size`` channels) ** beta."""
    x, size = operands[0], int(node.attributes["size"])
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    below = (size - 1) // 2
    squares = F.pad((x * x).transpose(1, -1), (below, size - 1 - below))
    total = squares.unfold(-1, size, 1).sum(-1).transpose(1, -1)
    return x / (bias + alpha / size * total) ** beta


@operator("LpNormalization")
def lp_norm(node: Node, operands: list[Any]) -> Tensor:
    x, axis = operands[0], node.get("axis", -1)
    return x / torch.linalg.vector_norm(x, node.get("p", 2), axis, keepdim=True)


@operator("MeanVarianceNormalization")
def mean_variance_norm(node: Node, operands: list[Any]) -> Tensor:
    x, axes = operands[0], tuple(node.get("axes") or (0, 2, 3))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + math.pow(10, -9))
