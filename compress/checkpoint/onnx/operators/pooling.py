"""Poolings."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.operators.windows import Window, padded, window
from compress.checkpoint.onnx.registry import Node, Untranslatable, operator

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_GLOBAL: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@operator("MaxPool")
def max_pool(node: Node, operands: list[Any]) -> Tensor:
    """The largest value of each window; padding counts as minus infinity."""
    x, slid = operands[0], _window(node, operands[0])
    if len([name for name in node.outputs if name]) > 1:
        raise Untranslatable("its second output, the positions of the maxima, is used")
    ceil = bool(node.get("ceil_mode", 0))
    fits = all(2 * p <= k for p, k in zip(slid.before, slid.kernel, strict=True))
    if not (slid.symmetric and fits):
        x, padding = padded(x, slid, -math.inf), [0] * len(slid.kernel)
    else:
        padding = slid.before
    return _MAX[len(slid.kernel)](x, slid.kernel, slid.strides, padding, slid.dilations, ceil)


@operator("AveragePool")
def average_pool(node: Node, operands: list[Any]) -> Tensor:
    """The mean of each window, with or without the padding in the count."""
    x, slid = operands[0], _window(node, operands[0])
    if any(n != 1 for n in slid.dilations):
        raise Untranslatable("an average over a dilated window")
    pool, ceil, count = _AVERAGE[len(slid.kernel)], bool(node.get("ceil_mode", 0)), node.get("count_include_pad", 0)
    fits = all(2 * p <= k for p, k in zip(slid.before, slid.kernel, strict=True))
    if slid.symmetric and fits:
        return pool(x, slid.kernel, slid.strides, slid.before, ceil, bool(count))
    mean = pool(padded(x, slid, 0.0), slid.kernel, slid.strides, 0, ceil)
    return mean if count else mean / _share(slid, x.shape[2:], ceil).to(x.dtype)


def _share(slid: Window, sizes: Any, ceil: bool) -> Tensor:
    """The fraction of each window that is no padding, (1, 1, ...); computed once, as it depends on sizes alone."""
    inside = padded(torch.ones(1, 1, *sizes), slid, 0.0)
    return _AVERAGE[len(slid.kernel)](inside, slid.kernel, slid.strides, 0, ceil)


def _window(node: Node, x: Tensor) -> Window:
    kernel = node.get("kernel_shape")
    if kernel is None or len(kernel) not in _MAX:
        raise Untranslatable(f"a kernel of shape {kernel}")
    return window(node, x.shape[2:], kernel)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    rank = x.dim() - 2
    return _GLOBAL[rank](x, 1) if rank in _GLOBAL else x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    return x.amax(tuple(range(2, x.dim())), keepdim=True)
