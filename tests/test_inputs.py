"""Types of inputs: written, drawn, recorded."""

from __future__ import annotations

import pytest
import torch

from compress.errors import InputError
from compress.inputs import InputType, parse_type, recorded_type, types_of, written


@pytest.mark.parametrize("text", ["float32", "int64", "int32", "bool", "int64<1000", "int32<7"])
def test_what_is_written_is_read_again(text: str) -> None:
    kind = parse_type(text)
    assert str(kind) == text
    assert recorded_type(kind.record((3, 4))) == kind
    assert kind.record((3, 4))["shape"] == [3, 4]


@pytest.mark.parametrize(
    "text", ["", "int8", "long", "int64<", "int64<0", "int64<x", "float32<3", "bool<2", "int32<3000000000"]
)
def test_what_is_no_type(text: str) -> None:
    with pytest.raises(InputError):
        parse_type(text)


def test_drawn_numbers_are_of_the_type_and_within_the_bound() -> None:
    for text, highest in (("int64", 1), ("int32", 1), ("int64<5", 4), ("bool", True)):
        kind = parse_type(text)
        drawn = kind.draw((40, 10), torch.Generator().manual_seed(0))
        assert drawn.shape == (40, 10) and drawn.dtype == getattr(torch, kind.dtype)
        assert (int(drawn.min()), int(drawn.max())) == (0, highest)
    floats = InputType().draw((3, 2), torch.Generator().manual_seed(0))
    assert torch.equal(floats, torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))


def test_records_of_others_are_read_as_floats() -> None:
    assert recorded_type({"shape": [3]}) == recorded_type({"shape": [3], "dtype": "float16"}) == InputType()
    assert recorded_type({"dtype": "int64", "below": "many"}) == InputType("int64")


def test_a_type_for_every_input() -> None:
    assert types_of((), 2) == (InputType(), InputType())
    assert types_of((InputType("bool"),), 1) == (InputType("bool"),)
    assert written([(16,), (3, 8)], [InputType("int64", 9), InputType()]) == "16 (int64<9) and 3x8"
