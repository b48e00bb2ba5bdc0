"""Marks on the elements of tensors that go into an operation: float32 tensors, above zero where marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
Result = Tensor | list[Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Marked:
    """One tensor that goes into an operation.

    Attributes:
        shape: Its shape; () for a number that was read from a tensor.
        on: Its marks; None for none.
        live: Where it may differ from zero, boolean.
        value: Its numbers where they are whole numbers that depend on no input: indices.
        uneven: Where it differs from its first along dim -2, if constants are looked for; None where that is no matter.
    """

    shape: Shape
    on: Tensor | None
    live: Tensor
    value: Tensor | None = None
    uneven: Tensor | None = None

    @property
    def marks(self) -> Tensor:
        return torch.zeros(self.shape) if self.on is None else self.on


@dataclass(frozen=True)
class Marking:
    """One call: the operation, its arguments by name with tensors as :class:`Marked`, and its results' shapes."""

    target: Any
    op: str
    args: dict[str, Any]
    shapes: tuple[Shape, ...]
    many: bool = False

    def tensors(self) -> list[Marked]:
        return [each for each in _flat(self.args) if isinstance(each, Marked)]

    def __getitem__(self, name: str) -> Any:
        return self.args[name]


def random(call: Marking) -> bool:
    """Whether the operation draws numbers. Dropout that is switched off does not."""
    if torch.Tag.nondeterministic_seeded not in getattr(call.target, "tags", ()):
        return False
    if call.op == "aten::scaled_dot_product_attention":
        return call.args.get("dropout_p", 0.0) != 0.0
    return call.args.get("train", call.args.get("training")) is not False


def everywhere(call: Marking, marks: Sequence[Tensor]) -> Result:
    """Every mark shows in every element of every result."""
    total = sum((m.sum() for m in marks), torch.zeros(()))
    results = [total.expand(shape) for shape in call.shapes]
    return results if call.many else results[0]


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        return [leaf for each in tree for leaf in _flat(each)]
    return [tree]
