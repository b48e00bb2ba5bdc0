"""What a bundle stores of a tensor gives the tensor back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.checkpoint.packing import restored, stored
from compress.errors import InputError, ModelError


def sparse(*shape: int, kept: float = 0.1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    return (values * (torch.rand(shape, generator=generator) < kept)).to(dtype)


def test_bitmap_and_values_by_hand() -> None:
    tensor = torch.zeros(40, 10)
    tensor[0, 0], tensor[0, 3], tensor[0, 9] = 1.0, -2.0, 3.0
    made, record = stored({"w": tensor})
    assert record == {"w": {"dtype": "float32", "shape": [40, 10]}}
    assert made["w.values"].tolist() == [1.0, -2.0, 3.0]
    assert made["w.bitmap"].tolist() == [0b00001001, 0b00000010] + [0] * 48
    assert torch.equal(restored(made, record)["w"], tensor)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 24), max_size=3),
    st.floats(0, 1),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_every_tensor_comes_back(shape: list[int], kept: float, dtype: torch.dtype) -> None:
    tensor = sparse(*shape, kept=kept, dtype=dtype)
    made, record = stored({"w": tensor, "n": torch.arange(5)})
    again = restored(made, record)
    assert list(again) == ["w", "n"] or set(again) == {"w", "n"}
    assert torch.equal(again["w"], tensor) and again["w"].dtype == dtype
    size = sum(each.numel() * each.element_size() for name, each in made.items() if name != "n")
    assert size <= tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("tensor", [torch.randn(50, 50), torch.zeros(5), torch.zeros(500, dtype=torch.int64)])
def test_what_gains_nothing_stays(tensor: torch.Tensor) -> None:
    made, record = stored({"w": tensor})
    assert (list(made), record) == (["w"], {})


def test_names_that_are_taken_and_values_that_are_no_numbers() -> None:
    tensor = sparse(50, 50)
    tensor[0, 0] = float("nan")
    assert stored({"w": tensor, "w.values": torch.ones(1)})[1] == {}
    made, record = stored({"w": tensor})
    assert torch.equal(restored(made, record)["w"].nan_to_num(9), tensor.nan_to_num(9))
    assert stored({"w": tensor}, pack=False) == ({"w": tensor}, {})


@pytest.mark.parametrize(("precision", "error"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_sixteen_bits_are_stored_and_thirty_two_loaded(precision: torch.dtype, error: float) -> None:
    tensors = {"dense": torch.randn(20, 20), "sparse": sparse(50, 50), "n": torch.arange(3)}
    made, record = stored(tensors, precision=precision)
    assert made["dense"].dtype == made["sparse.values"].dtype == precision
    again = restored(made, record)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        torch.testing.assert_close(again[name], tensor, rtol=error, atol=1e-6)


def test_what_sixteen_bits_cannot_hold_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'w' holds 1.0e\+06") as caught:
        stored({"w": torch.tensor([1e6])}, precision=torch.float16)
    assert caught.value.hint == "--quantize bf16"
    assert stored({"w": torch.tensor([float("inf")])}, precision=torch.float16)[0]["w"].isinf().all()


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "float32", "shape": [50, 51]},
        {"dtype": "float32", "shape": [50, -50]},
        {"dtype": "float32", "shape": "50"},
        {"dtype": "object", "shape": [50, 50]},
        {"shape": [50, 50]},
        [],
    ],
)
def test_damaged_records(entry: Any) -> None:
    made, _ = stored({"w": sparse(50, 50)})
    with pytest.raises(InputError, match="stored tensor 'w' is damaged"):
        restored(made, {"w": entry})


def test_a_bitmap_that_tells_of_other_values() -> None:
    made, record = stored({"w": sparse(50, 50)})
    with pytest.raises(InputError, match="damaged"):
        restored({**made, "w.values": made["w.values"][:-1]}, record)
    ones = torch.from_numpy(np.full(313, 255, np.uint8))
    with pytest.raises(InputError, match="the bitmap tells of 2500 values"):
        restored({**made, "w.bitmap": ones}, record)
