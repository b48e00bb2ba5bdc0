"""Calls of the traced graph: names of operations, arguments by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def op_name(target: Any) -> str:
    """``aten::conv2d`` for an operator overload, the function's name for anything else."""
    schema = getattr(target, "_schema", None)
    return schema.name if schema is not None else getattr(target, "__name__", str(target))


def bind(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their schema name."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return {**{f"arg{i}": a for i, a in enumerate(args)}, **kwargs}
    names = [a.name for a in schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}
