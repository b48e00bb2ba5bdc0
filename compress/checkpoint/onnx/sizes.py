"""Sizes behind the batch that an ONNX file leaves open, such as those of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compress.checkpoint.onnx.file import Port

Names = tuple[tuple[str, ...], ...]
"""By input and dim behind the batch: what an open size is called, "" for one that is given."""


def open_sizes(ports: Sequence[Port]) -> Names:
    """The names in the file; a size without one is called after its input and dim. Of an input without shape: none."""
    return tuple(
        tuple("" if isinstance(n, int) else n or f"{port.name}_{dim}" for dim, n in enumerate(port.sizes[1:], 1))
        if port.sizes
        else ()
        for port in ports
    )


def with_other_sizes(inputs: Sequence[Tensor], names: Names) -> Iterator[tuple[Tensor, ...]]:
    """Examples whose open sizes are half as large, where they can be halved, and twice as large.

    Both, as what is cut to one size shows where inputs are larger, and what is filled up to it where they are smaller.

    Args:
        inputs: Examples, batch first; integers are taken from these.
        names: Of their open sizes.
    """
    for factor in (0.5, 2.0):
        if made := _scaled(inputs, names, factor):
            yield made


def _scaled(inputs: Sequence[Tensor], names: Names, factor: float) -> tuple[Tensor, ...]:
    """Empty where a size would be no integer."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for each, open_ in zip(inputs, names, strict=True):
        for dim, name in enumerate(open_, 1):
            if not name:
                continue
            size = each.shape[dim]
            if not (size * factor).is_integer():
                return ()
            each = each.index_select(dim, torch.arange(int(size * factor)) % size)
        if each.is_floating_point():
            each = torch.randn(each.shape, generator=generator).to(each.dtype)
        made.append(each)
    return tuple(made)
