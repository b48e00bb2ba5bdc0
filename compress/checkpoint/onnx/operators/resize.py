"""Resizing of images, by PyTorch's own interpolation where that is the same, else as products along each dim."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from compress.checkpoint.onnx.numeric import evaluate
from compress.checkpoint.onnx.operators.elementwise import tensor
from compress.checkpoint.onnx.registry import Array, Node, Untranslatable, integers, operator

_OTHER = {"roi", "axes", "keep_aspect_ratio_policy"}


@operator("Upsample", numbers=(1,))
def upsample(node: Node, operands: list[Any]) -> Tensor:
    """The Resize of opsets 7 to 9: scales from the corner, nearest or linear."""
    scales = node.get("scales") if len(operands) < 2 else operands[1]
    settings = {"mode": node.get("mode", "nearest"), "coordinate_transformation_mode": "asymmetric"}
    return _resized(operands[0], np.asarray(scales, np.float64), None, settings | {"nearest_mode": "floor"})


@operator("Resize", numbers=(1, 2, 3))
def resize(node: Node, operands: list[Any]) -> Tensor:
    x, *rest = operands
    if node.opset < 11:
        settings = {"mode": node.get("mode", "nearest"), "coordinate_transformation_mode": "asymmetric"}
        return _resized(x, np.asarray(rest[0], np.float64), None, settings | {"nearest_mode": "floor"})
    _, scales, sizes = (*rest, None, None, None)[:3]
    scales = None if scales is None or not scales.size else np.asarray(scales, np.float64)
    wanted = integers(sizes)
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize" or node.get("antialias", 0):
        raise Untranslatable("it crops, or smooths before it shrinks")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Untranslatable("it keeps the aspect ratio")
    axes = node.get("axes")
    if axes is not None:
        full = np.ones(x.dim()) if scales is not None else np.array(x.shape, np.float64)
        full[list(axes)] = scales if scales is not None else wanted
        scales, wanted = (full, None) if scales is not None else (None, [int(n) for n in full])
    return _resized(x, scales, wanted, {k: v for k, v in node.attributes.items() if k not in _OTHER})


def _resized(x: Tensor, scales: Array | None, sizes: list[int] | None, settings: dict[str, Any]) -> Tensor:
    before = list(x.shape)
    if sizes is None:
        if scales is None:
            raise Untranslatable("neither scales nor sizes are given")
        sizes = [int(np.floor(n * s)) for n, s in zip(before, scales, strict=True)]
    if sizes[0] != before[0] or sizes[1] != before[1]:
        raise Untranslatable("it resizes the batch or the channels")
    if sizes == before:
        return x
    whole = scales is None or all(n * s == m for n, s, m in zip(before, scales, sizes, strict=True))
    corners = settings.get("coordinate_transformation_mode") == "align_corners"  # goes by sizes alone
    if corners and scales is not None:
        scales = np.array([m / n for n, m in zip(before, sizes, strict=True)])
    direct = _direct(x, sizes, settings) if whole or corners else None
    return direct if direct is not None else _along_each(x, scales, sizes, settings)


def _direct(x: Tensor, sizes: list[int], settings: dict[str, Any]) -> Tensor | None:
    """By one call of PyTorch; None where it rounds otherwise."""
    mode = settings.get("mode", "nearest")
    where = settings.get("coordinate_transformation_mode", "half_pixel")
    linear = {3: "linear", 4: "bilinear", 5: "trilinear"}.get(x.dim())
    changed = [n for n, m in zip(sizes[2:], x.shape[2:], strict=True) if n != m]
    if linear is None:
        return None
    if mode == "nearest" and where == "asymmetric" and settings.get("nearest_mode") == "floor":
        return F.interpolate(x, sizes[2:], mode="nearest")
    if mode == "linear" and (where == "half_pixel" or (where == "pytorch_half_pixel" and min(changed) > 1)):
        return F.interpolate(x, sizes[2:], mode=linear, align_corners=False)
    if mode == "linear" and where == "align_corners":
        return F.interpolate(x, sizes[2:], mode=linear, align_corners=True)
    return None


def _along_each(x: Tensor, scales: Array | None, sizes: list[int], settings: dict[str, Any]) -> Tensor:
    """Dim by dim with the matrix that ONNX's own implementation makes of the identity."""
    for axis in range(2, x.dim()):
        if sizes[axis] == x.shape[axis]:
            continue
        scale = None if scales is None else float(scales[axis])
        matrix = _matrix(x.shape[axis], sizes[axis], scale, settings)
        rows = x.movedim(axis, -1) if axis != x.dim() - 1 else x
        if settings.get("mode", "nearest") == "nearest":
            x = x.index_select(axis, tensor(matrix.argmax(1)))
            continue
        found = torch.matmul(rows, tensor(np.ascontiguousarray(matrix.T)).to(x.dtype))
        x = found.movedim(-1, axis) if axis != x.dim() - 1 else found
    return x


def _matrix(size: int, wanted: int, scale: float | None, settings: dict[str, Any]) -> Array:
    """(wanted, size): what each new position takes of each old one."""
    eye = np.eye(size, dtype=np.float32)
    if scale is None:
        proto = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **settings)
        found = evaluate(proto, 13, [eye, None, None, np.array([size, wanted], np.int64)])[0]
    else:
        proto = helper.make_node("Resize", ["x", "", "scales"], ["y"], **settings)
        found = evaluate(proto, 13, [eye, None, np.array([1.0, scale], np.float32)])[0]
    return np.asarray(found).T
