"""Convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.operators.windows import padded, window
from compress.checkpoint.onnx.registry import Node, Untranslatable, operator

_FORWARD: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv")
def conv(node: Node, operands: list[Any]) -> Tensor:
    """(N, C, ...) with a weight (O, C / group, ...); padding that differs between the sides is written out."""
    x, weight, *rest = operands
    bias = rest[0] if rest else None
    rank = weight.dim() - 2
    if rank not in _FORWARD:
        raise Untranslatable(f"a convolution over {rank} dims")
    slid = window(node, x.shape[2:], weight.shape[2:])
    if not slid.symmetric:
        x = padded(x, slid, 0.0)
    padding = slid.before if slid.symmetric else [0] * rank
    return _FORWARD[rank](x, weight, bias, slid.strides, padding, slid.dilations, node.get("group", 1))


@operator("ConvTranspose")
def conv_transpose(node: Node, operands: list[Any]) -> Tensor:
    """(N, C, ...) with a weight (C, O / group, ...); what the padding takes away is cropped where the sides differ."""
    x, weight, *rest = operands
    bias = rest[0] if rest else None
    rank = weight.dim() - 2
    if rank not in _TRANSPOSED:
        raise Untranslatable(f"a transposed convolution over {rank} dims")
    strides = list(node.get("strides") or [1] * rank)
    dilations = list(node.get("dilations") or [1] * rank)
    extra = list(node.get("output_padding") or [0] * rank)
    full = [
        s * (size - 1) + e + (k - 1) * d + 1
        for size, s, e, k, d in zip(x.shape[2:], strides, extra, weight.shape[2:], dilations, strict=True)
    ]
    before, after = _cropped(node, full, x.shape[2:], strides)
    if any(n < 0 for n in (*before, *after)):
        raise Untranslatable("its output_shape is larger than what the kernel reaches")
    same = before == after
    padding = before if same else [0] * rank
    found = _TRANSPOSED[rank](x, weight, bias, strides, padding, extra, node.get("group", 1), dilations)
    if not same:
        for dim, (size, begin, end) in enumerate(zip(full, before, after, strict=True), 2):
            found = torch.ops.aten.slice.Tensor(found, dim, begin, size - end, 1)
    return found


def _cropped(node: Node, full: list[int], sizes: Any, strides: list[int]) -> tuple[list[int], list[int]]:
    """What is taken away at the beginning and the end of each spatial dim."""
    mode, rank = node.get("auto_pad", "NOTSET"), len(full)
    wanted = node.get("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * s for size, s in zip(sizes, strides, strict=True)]
    if wanted is None:
        pads = list(node.get("pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return pads[:rank], pads[rank:]
    totals = [size - out for size, out in zip(full, wanted[-rank:], strict=True)]
    small, large = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return (small, large) if mode == "SAME_UPPER" else (large, small)
