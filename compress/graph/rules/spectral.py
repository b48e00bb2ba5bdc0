"""Fourier transforms and complex numbers."""

from __future__ import annotations

from typing import Any

from compress.graph.labels import Factor, Value
from compress.graph.rules.registry import Call, mixing, only, rule

_NAMES = [f"{sign}{real}fft{n}" for sign in ("", "i") for real in ("", "r") for n in ("", "2", "n")]


def _dims(call: Call, rank: int) -> list[int]:
    dim: Any = call.get("dim")
    if dim is None and call.op.endswith("n"):
        return list(range(rank - len(call["s"]), rank)) if call.get("s") else list(range(rank))
    if dim is None:
        dim = [-2, -1] if call.op.endswith("2") else [-1]
    return [d % rank for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


@rule(*(f"aten::fft_{name}" for name in _NAMES))
def transform(call: Call) -> Value:
    """The transformed dims stay; what lies along the others is transformed by itself."""
    x = call["self"]
    dims = _dims(call, x.rank)
    x = mixing(call, x, dims)
    kept = only(call, x, [d for d in range(x.rank) if d not in dims], "transformed to frequencies along this dimension")
    return Value(call.shape, kept)


@rule("aten::view_as_real")
def pairs_of_numbers(call: Call) -> Value:
    return Value(call.shape, tuple(Factor(f.labels[..., None], f.axis) for f in call["self"].factors))


@rule("aten::view_as_complex")
def complex_numbers(call: Call) -> Value:
    x = mixing(call, call["self"], [-1])
    kept = only(call, x, range(x.rank - 1), "real and imaginary part")
    return Value(call.shape, tuple(Factor(f.labels[..., 0], f.axis) for f in kept))
