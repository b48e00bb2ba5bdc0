"""Sizes behind the batch that an exported ONNX file leaves open."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint.onnx.sizes import Names, with_other_sizes


def with_open_sizes(model: Any, names: Names) -> Any:
    """A copy of an ONNX model that asks for no particular sizes where there is a name for them.

    Args:
        model: It is not changed.
        names: By input and dim behind the batch; "" where the size stays.
    """
    from onnx import shape_inference

    opened = copy.deepcopy(model)
    for each, open_ in zip(opened.graph.input, names, strict=True):
        for dim, name in zip(each.type.tensor_type.shape.dim[1:], open_, strict=False):
            if name:
                dim.dim_param = name
    del opened.graph.value_info[:]
    for each in opened.graph.output:
        for dim in each.type.tensor_type.shape.dim[1:]:
            dim.Clear()
    return shape_inference.infer_shapes(opened)


def samples_of_other_sizes(module: nn.Module, inputs: Sequence[Tensor], names: Names) -> list[tuple[Tensor, ...]]:
    """One sample each of the other sizes that the module takes; halves may be too small for it.

    Args:
        module: What is exported.
        inputs: Examples, batch first.
        names: Of their open sizes.
    """
    found = []
    for sample in with_other_sizes([each[:1] for each in inputs], names):
        try:
            with torch.no_grad():
                module(*(each.clone() for each in sample))
        except (RuntimeError, ValueError, IndexError):  # as PyTorch refuses sizes
            continue
        found.append(sample)
    return found
