"""Nested arguments and results of a forward: the tensors in them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class _Position:
    """Where a tensor stood: its number in the flat list."""

    number: int


@dataclass(frozen=True)
class Arguments:
    """How a module is called, without the tensors: ``forward(*args, **kwargs)`` with numbers in their place.

    Attributes:
        args, kwargs: Nested lists, tuples and dicts; what is no tensor is kept as it is.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def build(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments that hold these tensors."""

        def fill(leaf: Any) -> Any:
            return tensors[leaf.number] if isinstance(leaf, _Position) else leaf

        args, kwargs = map_leaves((self.args, dict(self.kwargs)), fill)
        return args, kwargs

    def call(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        """The result of a module on these tensors."""
        args, kwargs = self.build(tensors)
        return function(*args, **kwargs)


def flatten(args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> tuple[Arguments, tuple[Tensor, ...]]:
    """The tensors of a call in order, and how to make the call from them."""
    tensors: list[Tensor] = []

    def number(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        tensors.append(leaf)
        return _Position(len(tensors) - 1)

    inside = map_leaves((tuple(args), dict(kwargs or {})), number)
    return Arguments(*inside), tuple(tensors)


def positional(count: int) -> Arguments:
    """A call with ``count`` tensors and nothing else."""
    return Arguments(tuple(_Position(i) for i in range(count)), {})


def map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """``tree`` with every leaf changed; lists, tuples and dicts are nests, their subclasses included."""
    if isinstance(tree, Mapping):
        return {key: map_leaves(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_leaves(value, change) for value in tree)
    if isinstance(tree, list):
        return [map_leaves(value, change) for value in tree]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, (type, _Position)):
        fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
        return {key: map_leaves(value, change) for key, value in fields.items() if value is not None}
    return change(tree)
