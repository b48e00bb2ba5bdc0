"""Arguments and results of operations while they are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """An argument with its tensors and devices changed."""
    if isinstance(value, (Tensor, torch.device)):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(changed(each, change) for each in value)
    return value


def shape_only(value: Any) -> Any:
    """A tensor without its numbers; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value if value.device.type == "meta" else torch.empty(value.shape, dtype=value.dtype, device="meta")
