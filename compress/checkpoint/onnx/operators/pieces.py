"""Operations that take tensors apart and put them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.operators.elementwise import tensor
from compress.checkpoint.onnx.registry import Node, Untranslatable, axis_of, given, integers, operator

SELECT = ("compress", "Select")  # an own operator: what is left of an If whose branches stand among the other nodes
_TO_THE_END = 2**63 - 1
_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator(SELECT[1], numbers=(0,), domain=SELECT[0])
def select(node: Node, operands: list[Any]) -> Any:
    """Of a condition, the value of one branch and that of the other the one that was computed."""
    return operands[1 if bool(operands[0]) else 2]


@operator("Concat")
def concat(node: Node, operands: list[Any]) -> Tensor:
    return torch.cat(operands, node.get("axis", 1)) if len(operands) > 1 else operands[0]


@operator("Split", numbers=(1,))
def split(node: Node, operands: list[Any]) -> tuple[Tensor, ...]:
    """In pieces of given sizes, or in equal ones of which the last may be smaller."""
    x, axis = operands[0], axis_of(node.get("axis", 0), operands[0].dim())
    sizes = given(node, operands, 1, "split")
    if sizes is None:
        each = -(-x.shape[axis] // len(node.outputs))
        sizes = [each] * (len(node.outputs) - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    return torch.split(x, sizes, axis)


@operator("Slice", numbers=(1, 2, 3, 4))
def slice_(node: Node, operands: list[Any]) -> Tensor:
    """Bounds beyond the ends are the ends; negative steps run backwards."""
    x = operands[0]
    starts, ends = given(node, operands, 1, "starts") or [], given(node, operands, 2, "ends") or []
    axes = given(node, operands, 3, "axes") or list(range(len(starts)))
    steps = given(node, operands, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis, x.dim())
        size = x.shape[axis]
        if step < 0:
            positions = list(range(size))[slice(start, None if end < -size else end, step)]
            whole = positions == list(range(size))[::-1]
            x = x.flip(axis) if whole else x.index_select(axis, tensor(np.array(positions, np.int64)))
            continue
        begin = min(max(axis_of(start, size), 0), size)
        stop = _TO_THE_END if end >= size else max(axis_of(end, size), begin)
        if begin or stop != _TO_THE_END or step != 1:
            x = torch.ops.aten.slice.Tensor(x, axis, begin, stop, step)
    return x


@operator("Gather", raw=True)
def gather(node: Node, operands: list[Any]) -> Tensor:
    """Rows of a table by number, one index, or several along an axis; negative ones count from the end."""
    x, indices = tensor(operands[0]), operands[1]
    axis = axis_of(node.get("axis", 0), x.dim())
    if isinstance(indices, np.ndarray):
        indices = np.where(indices < 0, indices + x.shape[axis], indices)
        if indices.ndim == 0:
            return x.select(axis, int(indices))
        if x.dim() == 1 and np.array_equal(indices.reshape(-1), np.arange(x.shape[0])):
            return x.reshape(indices.shape)  # a view that was written as a look-up
        indices = torch.from_numpy(indices.astype(np.int64))
        if indices.dim() == 1:
            return x.index_select(axis, indices)
    if x.dim() == 2 and axis == 0 and x.is_floating_point():
        return F.embedding(indices, x)
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(node: Node, operands: list[Any]) -> Tensor:
    x, indices = operands
    axis = axis_of(node.get("axis", 0), x.dim())
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


@operator("GatherND")
def gather_nd(node: Node, operands: list[Any]) -> Tensor:
    """The last dim of the indices (..., k) counts along the first k dims."""
    if node.get("batch_dims", 0):
        raise Untranslatable(f"its batch_dims is {node.get('batch_dims')}")
    x, indices = operands
    return x[tuple(indices.unbind(-1))]


@operator("ScatterND")
def scatter_nd(node: Node, operands: list[Any]) -> Tensor:
    """What an assignment to a part of a tensor is written as."""
    if node.get("reduction", "none") not in ("none", "add"):
        raise Untranslatable(f"its reduction is {node.get('reduction')}")
    x, indices, updates = operands
    return x.index_put(tuple(indices.unbind(-1)), updates, accumulate=node.get("reduction", "none") == "add")


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node, operands: list[Any]) -> Tensor:
    if node.get("reduction", "none") not in ("none", "add"):
        raise Untranslatable(f"its reduction is {node.get('reduction')}")
    x, indices, updates = operands
    axis = axis_of(node.get("axis", 0), x.dim())
    indices = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    run = torch.scatter_add if node.get("reduction", "none") == "add" else torch.scatter
    return run(x, axis, indices, updates)


@operator("Pad", numbers=(1, 2, 3))
def pad(node: Node, operands: list[Any]) -> Tensor:
    """Begins and ends of each axis, in inputs since opset 11."""
    x, pads = operands[0], given(node, operands, 1, "pads") or []
    value = operands[2] if len(operands) > 2 else None
    filled = float(np.asarray(value).reshape(-1)[0]) if value is not None else node.get("value", 0.0)
    axes = integers(operands[3]) if len(operands) > 3 else None
    axes = [axis_of(a, x.dim()) for a in axes] if axes is not None else list(range(x.dim()))
    sides = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    last = min((axis for axis, pair in sides.items() if any(pair)), default=None)
    if last is None:
        return x
    mode = node.get("mode", "constant")
    if mode not in _MODES:
        raise Untranslatable(f"the mode {mode!r}")
    order = [n for axis in range(x.dim() - 1, last - 1, -1) for n in sides.get(axis, (0, 0))]
    if mode == "constant":
        return F.pad(x, order, value=filled if x.is_floating_point() else int(filled))
    if min(order) < 0 or not 0 < len(order) // 2 <= x.dim() - 2:
        raise Untranslatable(f"padding by {mode} of other dims than the spatial ones")
    return F.pad(x, order, mode=_MODES[mode])


@operator("Trilu", numbers=(1,))
def triangle(node: Node, operands: list[Any]) -> Tensor:
    x, k = operands[0], (integers(operands[1]) or [0])[0] if len(operands) > 1 else 0
    return torch.triu(x, k) if node.get("upper", 1) else torch.tril(x, k)
