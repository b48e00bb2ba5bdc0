"""The table of ONNX operators that are read: one function per operator, registered by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper
from torch import Tensor

Array = NDArray[Any]
Operand = Tensor | Array | None
"""A traced tensor, numbers that are known while tracing, or an optional input that is left out."""


class Untranslatable(Exception):
    """An operator is used in a way that has no translation; the message says which, the caller says where."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Node:
    """One operation of an ONNX graph.

    Attributes:
        kind: Its operator, such as "Conv".
        domain: Of the operator; "" for the ONNX ones.
        name: As the file calls it, or its first output where it has no name.
        inputs: Names of values; "" where an optional one is left out.
        outputs: Likewise.
        attributes: Numbers, strings, lists, tensors as arrays, subgraphs as they are.
        opset: The version of the operators that the file was written for.
        proto: As the file has it, for what is evaluated by the reference implementation; None for own operators.
        when: Conditions of the branches that it stands in: it runs only where each of these values is true, or false.
    """

    kind: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    proto: NodeProto | None = None
    when: tuple[tuple[str, bool], ...] = ()

    def renamed(self, names: Mapping[str, str]) -> Node:
        """With other names for what it reads."""
        inputs = tuple(names.get(name, name) for name in self.inputs)
        return replace(self, inputs=inputs, when=tuple((names.get(name, name), truth) for name, truth in self.when))

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what holds where it is not given."""
        return self.attributes.get(name, default)


Translation = Callable[[Node, list[Any]], Any]


@dataclass(frozen=True)
class Operator:
    """How an operator is read.

    Attributes:
        run: Takes the node and its operands, gives a tensor, or a tuple where the operator has several outputs.
        numbers: Positions of inputs whose numbers decide about the graph: shapes, axes, pads. Always arrays.
        raw: Whether known numbers come as arrays at the other positions, too, instead of as tensors.
    """

    run: Translation
    numbers: frozenset[int]
    raw: bool


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(
    *names: str, numbers: Collection[int] = (), raw: bool = False, domain: str = ""
) -> Callable[[Translation], Translation]:
    """Register the translation of one or more operators."""

    def register(run: Translation) -> Translation:
        for name in names:
            OPERATORS[domain, name] = Operator(run, frozenset(numbers), raw)
        return run

    return register


def find(node: Node) -> Operator | None:
    """The translation of a node's operator; None if there is none."""
    return OPERATORS.get((node.domain, node.kind))


def attribute_values(proto: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values."""
    return {each.name: _plain(helper.get_attribute_value(each)) for each in proto.attribute}


def _plain(value: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], bytes):
        return [each.decode("utf-8", "replace") for each in value]
    return list(value) if type(value).__name__.startswith("Repeated") else value


def integers(value: Operand) -> list[int] | None:
    """Known numbers as a list of integers; None where the input is left out."""
    return None if value is None else [int(each) for each in np.asarray(value).reshape(-1)]


def given(node: Node, operands: list[Any], position: int, attribute: str) -> list[int] | None:
    """Integers that older versions of an operator hold in an attribute and newer ones take as an input."""
    if len(operands) > position and operands[position] is not None:
        return integers(operands[position])
    value = node.get(attribute)
    return None if value is None else [int(each) for each in np.asarray(value).reshape(-1)]


def axis_of(axis: int, rank: int) -> int:
    """A dim counted from the front."""
    return axis + rank if axis < 0 else axis
