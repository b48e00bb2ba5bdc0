"""What kind of numbers a model reads: images are floats, words are integers.

Nothing here imports torch before numbers are drawn, so that a command line is refused at once where it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.errors import InputError

if TYPE_CHECKING:
    import torch

_INTEGERS = ("int64", "int32")
NAMES = ("float32", *_INTEGERS, "bool")
_LARGEST = {"int64": 2**63 - 1, "int32": 2**31 - 1}


@dataclass(frozen=True)
class InputType:
    """The type of an input and, for integers, the numbers that it takes.

    Attributes:
        dtype: One of ``NAMES``.
        below: Integers are drawn from 0 to ``below - 1``; None: 0 and 1, which any vocabulary has.
    """

    dtype: str = "float32"
    below: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in NAMES:
            raise InputError(f"inputs of type {self.dtype!r} cannot be made", f"one of {', '.join(NAMES)}")
        if self.below is None:
            return
        if self.dtype not in _INTEGERS:
            raise InputError(f"{self.dtype} inputs have no bound, got < {self.below}", "a bound is for int64 and int32")
        if not 1 <= self.below <= _LARGEST[self.dtype]:
            raise InputError(f"{self.dtype} inputs below {self.below} cannot be drawn", "--input-shape '16:int64<1000'")

    def __str__(self) -> str:
        return self.dtype if self.below is None else f"{self.dtype}<{self.below}"

    def draw(self, size: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Random numbers: standard normal, integers from 0 to below the bound, or either truth."""
        import torch

        if self.dtype == "float32":
            return torch.randn(*size, generator=generator)
        drawn = torch.randint(self.below or 2, tuple(size), generator=generator)
        return drawn.to(getattr(torch, self.dtype))

    def record(self, shape: Sequence[int]) -> dict[str, Any]:
        """An input of this type as a bundle's metadata holds it."""
        bound = {} if self.below is None else {"below": self.below}
        return {"shape": list(shape), "dtype": self.dtype, **bound}


def parse_type(text: str) -> InputType:
    """ "int64<1000" -> integers from 0 to 999. Raises InputError."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:<\s*(\d+)\s*)?", text)
    if match is None:
        raise InputError(f"{text!r} is not a type of inputs", f"one of {', '.join(NAMES)}, or int64<1000")
    return InputType(match[1], None if match[2] is None else int(match[2]))


def recorded_type(record: Mapping[str, Any]) -> InputType:
    """The type of an input from a bundle's metadata; float32 where it is of none that can be drawn."""
    dtype, below = record.get("dtype"), record.get("below")
    if dtype not in NAMES:
        return InputType()
    usable = dtype in _INTEGERS and type(below) is int and 1 <= below <= _LARGEST[dtype]
    return InputType(dtype, below if usable else None)


def types_of(given: Sequence[InputType], count: int) -> tuple[InputType, ...]:
    """One type for each of ``count`` inputs; float32 where none, or another number of them, is known."""
    return tuple(given) if len(given) == count else (InputType(),) * count


def written(shapes: Sequence[Sequence[int]], types: Sequence[InputType] = ()) -> str:
    """ "16 (int64) and 3x224x224"; the usual float32 goes without saying."""
    pairs = zip(shapes, types_of(types, len(shapes)), strict=True)
    return " and ".join("x".join(map(str, s)) + ("" if t == InputType() else f" ({t})") for s, t in pairs)
