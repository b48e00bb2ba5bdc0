"""Operations that change the shape alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, Untranslatable, axis_of, given, integers, operator


@operator("Reshape", numbers=(1,))
def reshape(node: Node, operands: list[Any]) -> Tensor:
    """0 copies a size of the input, unless ``allowzero``; -1 is what is left."""
    x, target = operands[0], given(node, operands, 1, "shape") or []
    if not node.get("allowzero", 0):
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


@operator("Flatten")
def flatten(node: Node, operands: list[Any]) -> Tensor:
    """To two dims: those before ``axis`` and the others."""
    x, axis = operands[0], axis_of(node.get("axis", 1), operands[0].dim())
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


@operator("Transpose")
def transpose(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    order = node.get("perm") or list(range(x.dim()))[::-1]
    return x if list(order) == list(range(x.dim())) else x.permute(list(order))


@operator("Squeeze", numbers=(1,))
def squeeze(node: Node, operands: list[Any]) -> Tensor:
    x, axes = operands[0], given(node, operands, 1, "axes")
    if axes is None:
        axes = [i for i, size in enumerate(x.shape) if size == 1]
    for axis in sorted((axis_of(a, x.dim()) for a in axes), reverse=True):
        x = x.squeeze(axis)
    return x


@operator("Unsqueeze", numbers=(1,))
def unsqueeze(node: Node, operands: list[Any]) -> Tensor:
    """Axes are those of the result."""
    x, axes = operands[0], given(node, operands, 1, "axes") or []
    for axis in sorted(axis_of(a, x.dim() + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", numbers=(1,))
def expand(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    target = torch.broadcast_shapes(tuple(x.shape), tuple(integers(operands[1]) or []))
    return x if target == tuple(x.shape) else x.expand(target)


@operator("Tile", numbers=(1,))
def tile(node: Node, operands: list[Any]) -> Tensor:
    return operands[0].repeat(integers(operands[1]))


@operator("ConstantOfShape", numbers=(0,))
def constant_of_shape(node: Node, operands: list[Any]) -> Tensor:
    value = np.asarray(node.get("value", np.zeros(1, np.float32))).reshape(-1)
    dtype = torch.from_numpy(value.copy()).dtype
    return torch.full(integers(operands[0]) or [], value[0].item(), dtype=dtype)


@operator("DepthToSpace")
def depth_to_space(node: Node, operands: list[Any]) -> Tensor:
    x, block = operands[0], int(node.attributes["blocksize"])
    if node.get("mode", "DCR") == "CRD":
        return torch.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    rows = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return rows.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def space_to_depth(node: Node, operands: list[Any]) -> Tensor:
    x, block = operands[0], int(node.attributes["blocksize"])
    n, c, h, w = x.shape
    if h % block or w % block:
        raise Untranslatable(f"blocks of {block} do not fit an input of {h} x {w}")
    rows = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return rows.reshape(n, c * block**2, h // block, w // block)
