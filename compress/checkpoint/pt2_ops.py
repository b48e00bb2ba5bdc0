"""Operators and arguments of an exported graph, as the archive's JSON writes them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

# Arithmetic on sizes. Everything else has to be a registered operator of one of the namespaces.
_ON_SIZES = {
    "_operator": (
        operator,
        "eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv and_ or_ lshift rshift getitem not_",
    ),
    "math": (math, "trunc ceil floor sqrt"),
    "torch": (torch, "sym_not sym_int sym_float sym_ite sym_max sym_min _sym_sqrt sym_sum"),
}
_NAMESPACES = ("aten", "prims", "torchvision", "quantized_decomposed")
_HIGHER_ORDER = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "cond")
_TOUCH_FILES = ("from_file", "save", "_print", "warn")

# Numbers of torch's export schema, version 8
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool,
    13: torch.bfloat16,
}  # fmt: skip
_MEMORY_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class Unreadable(Exception):
    """Something in an archive that cannot be read, or not safely."""


def checked_name(name: object) -> str:
    """`name`, if it may safely stand in generated code (letters, digits, underscores and dots)."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Unreadable(f"{name!r} is no name of a value or parameter")
    return name


def checked_dtype(number: int) -> torch.dtype:
    """The dtype of a number of the schema."""
    if number not in DTYPES:
        raise Unreadable(f"dtype number {number} is not known")
    return DTYPES[number]


def operator_of(target: str) -> Callable[..., Any]:
    """The operator that "torch.ops.aten.relu.default" or "_operator.add" names; only those are reached."""
    parts = target.split(".")
    found: Any = None
    if parts[:2] == ["torch", "ops"] and len(parts) == 5 and parts[2] in _NAMESPACES:
        if parts[2] == "torchvision":
            import torchvision  # noqa: F401  (registers its operators)
        packet = getattr(getattr(torch.ops, parts[2]), parts[3], None)
        found = getattr(packet, parts[4], None) if parts[3] not in _TOUCH_FILES else None
        found = found if isinstance(found, torch._ops.OpOverload) else None
    elif parts[:3] == ["torch", "ops", "higher_order"] and len(parts) == 4 and parts[3] in _HIGHER_ORDER:
        found = getattr(torch.ops.higher_order, parts[3])
    elif len(parts) == 2 and parts[0] in _ON_SIZES:
        module, names = _ON_SIZES[parts[0]]
        found = getattr(module, parts[1], None) if parts[1] in names.split() else None
    if found is None:
        raise Unreadable(f"operator {target!r} is not one that is taken from files")
    return found


def argument(
    arg: Mapping[str, Any],
    values: Mapping[str, fx.Node],
    subgraph: Callable[[str, Mapping[str, Any]], fx.Node],
) -> Any:
    """The Python value (or node) of one serialised argument, ``{"as_tensor": {"name": "x"}}``.

    Args:
        arg: A union with exactly one entry.
        values: The nodes so far, by name.
        subgraph: Builds a nested graph and gives the node that stands for it.
    """
    ((kind, value),) = arg.items()
    if kind in ("as_none", "as_optional_tensor") and not isinstance(value, dict):
        return None
    if kind == "as_graph":
        return subgraph(value["name"], value["graph"])
    if kind == "as_nested_tensors":
        return [[values[each["name"]] for each in row] for row in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _one(value, values)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"):
        return [_one(each, values) for each in value]
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_tensors":
        return [values[each["name"]] for each in value]
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    raise Unreadable(f"an argument of kind {kind} cannot be read")


def _one(value: Mapping[str, Any], values: Mapping[str, fx.Node]) -> Any:
    """A size that may be a number or a node, or a tensor that may be absent."""
    ((kind, inner),) = value.items()
    if kind == "as_name":
        return values[inner]
    if kind == "as_tensor":
        return values[inner["name"]]
    if kind == "as_none":
        return None
    return _PLAIN[kind](inner)


def _strided(number: int) -> torch.layout:
    if number != 7:
        raise Unreadable(f"layout number {number} is not strided")
    return torch.strided


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "as_int": int,
    "as_float": float,  # infinities come as words, which float() reads
    "as_bool": bool,
    "as_string": str,
    "as_ints": lambda value: [int(each) for each in value],
    "as_floats": lambda value: [float(each) for each in value],
    "as_bools": lambda value: [bool(each) for each in value],
    "as_strings": lambda value: [str(each) for each in value],
    "as_int_lists": lambda value: [[int(each) for each in row] for row in value],
    "as_float_lists": lambda value: [[float(each) for each in row] for row in value],
    "as_complex": lambda value: complex(value["real"], value["imag"]),
    "as_scalar_type": checked_dtype,
    "as_memory_format": lambda value: _MEMORY_FORMATS[value],
    "as_layout": _strided,
    "as_device": lambda value: torch.device("cpu"),  # wherever it was exported, it is loaded on the CPU
}
