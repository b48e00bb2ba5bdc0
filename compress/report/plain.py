"""A report as plain JSON values, and the versions that its numbers depend on."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from compress.errors import CompressError

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "safetensors", "onnx", "onnxruntime")
# Of what others measure, the fields that a report shows
_SHOWN = {
    "Accuracy": ("correct", "count", "accuracy", "low", "high", "confidence", "confident_classes", "per_class"),
    "Latency": ("p50", "p90", "runs", "batch", "threads", "runtime"),
}


def versions() -> dict[str, str]:
    """Python and the installed libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any, where: str) -> Any:
    """A value as JSON has it: dataclasses as objects, arrays as lists, paths as texts.

    Args:
        value: What a report holds.
        where: Its place, for errors: "report.after.macs".

    Raises:
        CompressError: A number is not finite.
    """
    if is_dataclass(value):
        names = _SHOWN.get(type(value).__name__) or [each.name for each in fields(value)]
        return {name: plain(getattr(value, name), f"{where}.{name}") for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, f"{where}[{index}]") for index, each in enumerate(value)]
    if hasattr(value, "item") and not isinstance(value, type):  # numbers of NumPy and torch
        value = value.item() if getattr(value, "ndim", 0) == 0 else value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise CompressError(f"{where} is {value}, which no report can hold", "leave it out if it was not measured")
    return str(value) if isinstance(value, Path) else value
