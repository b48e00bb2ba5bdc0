"""Operations element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, Operand, Untranslatable, operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Sign": torch.sign, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh, "Not": torch.logical_not,
    "IsNaN": torch.isnan, "IsInf": torch.isinf,
}  # fmt: skip
_COMPARISONS: dict[str, Callable[[Any, Any], Tensor]] = {
    "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt,
    "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le,
}  # fmt: skip
_LOGIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
}  # fmt: skip


def tensor(value: Any) -> Tensor:
    """A constant of the graph from known numbers; a tensor is itself."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def plain(value: Operand, other: Operand) -> Any:
    """One known number beside a tensor as a Python number, which needs no constant; else a tensor."""
    if isinstance(value, np.ndarray) and value.size == 1 and isinstance(other, Tensor) and value.ndim <= other.dim():
        return value.item()
    return tensor(value)


def pair(operands: list[Any]) -> tuple[Any, Any]:
    a, b = operands[:2]
    return plain(a, b), plain(b, a)


@operator(*_UNARY)
def unary(node: Node, operands: list[Any]) -> Tensor:
    return _UNARY[node.kind](operands[0])


@operator("Add", "Sub", "Mul", raw=True)
def arithmetic(node: Node, operands: list[Any]) -> Tensor:
    a, b = pair(operands)
    if node.kind == "Add":
        return a + b
    return a - b if node.kind == "Sub" else a * b


@operator("Div", raw=True)
def divide(node: Node, operands: list[Any]) -> Tensor:
    """Integers are divided towards zero."""
    a, b = pair(operands)
    whole = not any(_is_float(each) for each in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


@operator("Pow", raw=True)
def power(node: Node, operands: list[Any]) -> Tensor:
    a, b = pair(operands)
    if isinstance(b, float) and b == int(b) and abs(b) < 8:
        b = int(b)
    found = a**b
    return found.to(a.dtype) if isinstance(a, Tensor) else found


@operator("Mod", raw=True)
def modulo(node: Node, operands: list[Any]) -> Tensor:
    a, b = pair(operands)
    return torch.fmod(tensor(a), b) if node.get("fmod", 0) else torch.remainder(tensor(a), b)


@operator(*_COMPARISONS, raw=True)
def compare(node: Node, operands: list[Any]) -> Tensor:
    return _COMPARISONS[node.kind](tensor(operands[0]), pair(operands)[1])


@operator(*_LOGIC)
def logic(node: Node, operands: list[Any]) -> Tensor:
    return _LOGIC[node.kind](*operands)


@operator("Where", raw=True)
def where(node: Node, operands: list[Any]) -> Tensor:
    condition, a, b = operands
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return torch.where(tensor(condition), tensor(a), tensor(b))
    return torch.where(tensor(condition), plain(a, b), plain(b, a))


@operator("Sum", "Mean")
def total(node: Node, operands: list[Any]) -> Tensor:
    found = reduce(torch.add, operands)
    return found / len(operands) if node.kind == "Mean" else found


@operator("Max", "Min", raw=True)
def extreme(node: Node, operands: list[Any]) -> Tensor:
    """Of any number of inputs; a known number bounds like a clamp."""

    def meet(a: Any, b: Any) -> Tensor:
        a, b = pair([a, b])
        if not isinstance(a, Tensor):
            a, b = b, a
        if not isinstance(b, Tensor):
            return a.clamp(min=b) if node.kind == "Max" else a.clamp(max=b)
        return torch.maximum(a, b) if node.kind == "Max" else torch.minimum(a, b)

    return reduce(meet, operands) if len(operands) > 1 else tensor(operands[0])


@operator("Clip", raw=True)
def clip(node: Node, operands: list[Any]) -> Tensor:
    """Bounds are attributes until opset 10, inputs since then."""
    x = tensor(operands[0])
    bounds = [operands[i] if len(operands) > i else None for i in (1, 2)]
    low, high = (
        plain(each, x) if each is not None else node.get(name)
        for each, name in zip(bounds, ("min", "max"), strict=True)
    )
    if low is None and high is None:
        return x
    if (low, high) == (0, 6):
        return torch.nn.functional.relu6(x)
    if isinstance(low, Tensor) != isinstance(high, Tensor):
        low, high = (None if each is None else torch.as_tensor(each) for each in (low, high))
    return x.clamp(low, high)


@operator("Cast", "CastLike")
def cast(node: Node, operands: list[Any]) -> Tensor:
    x = operands[0]
    dtype = operands[1].dtype if node.kind == "CastLike" else torch_dtype(int(node.attributes["to"]))
    return x if x.dtype == dtype else x.to(dtype)


@operator("Identity")
def identity(node: Node, operands: list[Any]) -> Tensor:
    return operands[0]


@operator("Dropout")
def dropout(node: Node, operands: list[Any]) -> Tensor:
    """Without effect after training."""
    if len([name for name in node.outputs if name]) > 1:
        raise Untranslatable("its mask is used as an output")
    return operands[0]


def torch_dtype(number: int) -> torch.dtype:
    """The type of tensors that ONNX gives this number."""
    names = {"bool": "bool", "float16": "float16", "bfloat16": "bfloat16", "float32": "float32", "float64": "float64"}
    name = str(helper.tensor_dtype_to_np_dtype(number))
    found = getattr(torch, names.get(name, name), None)
    if not isinstance(found, torch.dtype):
        raise Untranslatable(f"numbers of type {name}")
    return found


def _is_float(value: Any) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, float)
