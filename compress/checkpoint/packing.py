"""Tensors as a bundle stores them: sparse ones as a bitmap and their values, others in 16 bits where that is asked for.

A packed tensor ``w`` of n values lies in the file as ``w.bitmap``, uint8 of ceil(n / 8): bit i % 8 of byte i // 8 tells
whether value i, in row-major order, is not zero; and ``w.values``, those that are not, in order. A record says by name
what a tensor has to become: its type and, of a packed one, its shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError, ModelError

_TYPES = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_HEADER = 200  # bytes that the names and the record of a packed tensor take
_GAIN = 0.1  # of a tensor's bytes; less is not worth a second form

Record = dict[str, dict[str, Any]]


def stored(
    tensors: Mapping[str, Tensor], *, pack: bool = True, precision: torch.dtype | None = None
) -> tuple[dict[str, Tensor], Record]:
    """What to put into the file, and the record of what that is.

    Args:
        tensors: By name, on the CPU.
        pack: Pack those that are a tenth smaller then, names and all; zeros lose their sign.
        precision: ``torch.float16`` or ``torch.bfloat16`` for those of float32 and float64.

    Raises:
        ModelError: A value is too large for the precision.
    """
    made: dict[str, Tensor] = {}
    record: Record = {}
    for name, tensor in tensors.items():
        kept = _narrowed(name, tensor, precision)
        if kept.dtype != tensor.dtype:
            record[name] = {"dtype": _NAMES[tensor.dtype]}
        parts = _packed(name, kept, {*tensors, *made}) if pack else None
        if parts is not None:
            record.setdefault(name, {"dtype": _NAMES[tensor.dtype]})["shape"] = list(tensor.shape)
        made |= {name: kept} if parts is None else parts
    return made, record


def restored(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inverse of `stored`: every tensor in its type and shape.

    Raises:
        InputError: The record is damaged or does not fit the tensors.
    """
    made = dict(tensors)
    for name, entry in record.items():
        try:
            dtype = _TYPES[entry["dtype"]]
            if "shape" in entry:
                made[name] = _unpacked(made.pop(f"{name}.bitmap"), made.pop(f"{name}.values"), entry["shape"]).to(dtype)
            else:
                made[name] = made[name].to(dtype)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"the stored tensor {name!r} is damaged: {reason}", "write the file again") from error
    return made


def _narrowed(name: str, tensor: Tensor, precision: torch.dtype | None) -> Tensor:
    if precision is None or tensor.dtype not in (torch.float32, torch.float64):
        return tensor
    made = tensor.to(precision)
    if bool((made.isinf() & ~tensor.isinf()).any()):
        raise ModelError(
            f"{name!r} holds {float(tensor.abs().max()):.1e}, which {_NAMES[precision]} cannot", "--quantize bf16"
        )
    return made


def _packed(name: str, tensor: Tensor, taken: set[str]) -> dict[str, Tensor] | None:
    """Bitmap and values; None where they are not worth it."""
    if tensor.dtype not in _NAMES or taken & {f"{name}.bitmap", f"{name}.values"}:
        return None
    whole, flat = tensor.numel() * tensor.element_size(), tensor.reshape(-1)
    there = flat != 0
    needed = int(there.sum()) * tensor.element_size() + math.ceil(tensor.numel() / 8) + _HEADER
    if whole - needed <= _GAIN * whole:
        return None
    bitmap = torch.from_numpy(np.packbits(there.numpy(), bitorder="little"))
    return {f"{name}.bitmap": bitmap, f"{name}.values": flat[there]}


def _unpacked(bitmap: Tensor, values: Tensor, shape: Any) -> Tensor:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r} is no shape")
    count = math.prod(shape)
    if bitmap.dtype != torch.uint8 or bitmap.shape != (math.ceil(count / 8),) or values.dim() != 1:
        raise ValueError(f"a bitmap of {tuple(bitmap.shape)} does not belong to {shape}")
    there = torch.from_numpy(np.unpackbits(bitmap.numpy(), count=count, bitorder="little").view(np.bool_))
    if int(there.sum()) != len(values):
        raise ValueError(f"the bitmap tells of {int(there.sum())} values, there are {len(values)}")
    made = torch.zeros(count, dtype=values.dtype)
    made[there] = values
    return made.reshape(shape)
