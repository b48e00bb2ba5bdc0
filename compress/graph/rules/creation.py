"""Tensors made of one constant fit any size, so their dims may shrink with what they meet."""

from __future__ import annotations

from typing import Any

from compress.graph.labels import Factor, Value
from compress.graph.rules.registry import Call, Cut, rewrite, rule

_FILLED = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")


@rule(*(f"aten::{name}" for name in _FILLED))
def filled(call: Call) -> Value:
    factors = []
    for axis, n in enumerate(call.shape):
        if n > 1:
            shape = [1] * len(call.shape)
            shape[axis] = n
            factors.append(Factor(call.relations.fresh(*shape), axis))
    return Value(call.shape, tuple(factors))


@rewrite(*(f"aten::{name}" for name in _FILLED))
def filled_size(cut: Cut) -> dict[str, Any]:
    return {"size": cut.new_shape()}


@rule("aten::arange", "aten::scalar_tensor", "aten::empty", "aten::linspace", "aten::eye")
def unlabelled(call: Call) -> Value:
    """Values differ by position and nothing says which may go."""
    return Value(call.shape)
