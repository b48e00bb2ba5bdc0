"""Views, transposes, expansion: the same operation on the label arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.graph.labels import Factor, Value, pad_rank, permute_take
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, Cut, rewrite, rule


@rule(
    "aten::view",
    "aten::reshape",
    "aten::_unsafe_view",
    "aten::flatten",
    "aten::unflatten",
    "aten::view_as",
    "aten::reshape_as",
    "aten::_reshape_alias",
    "aten::ravel",
    "aten::_unsafe_reshape",
)
def view(call: Call) -> Value:
    return reshape(call.relations, call.values()[0], call.shape)


@rewrite("aten::view", "aten::_unsafe_view", "aten::_reshape_alias")
def view_size(cut: Cut) -> dict[str, Any]:
    return {"size": cut.new_shape()}


@rewrite("aten::reshape")
def reshape_size(cut: Cut) -> dict[str, Any]:
    return {"shape": cut.new_shape()}


@rewrite("aten::unflatten")
def unflatten_sizes(cut: Cut) -> dict[str, Any]:
    dim, count = cut["dim"] % cut["self"].rank, len(cut["sizes"])
    return {"sizes": cut.new_shape()[dim : dim + count]}


@rule("aten::squeeze", "aten::squeeze_", "aten::unsqueeze", "aten::unsqueeze_")
def ones(call: Call) -> Value:
    return reshape(call.relations, call["self"], call.shape)


def _permute(x: Value, dims: list[int]) -> Value:
    return permute_take(x, [d % x.rank for d in dims])


@rule("aten::permute")
def permute(call: Call) -> Value:
    return _permute(call["self"], list(call["dims"]))


@rule(
    "aten::transpose",
    "aten::transpose_",
    "aten::swapaxes",
    "aten::swapdims",
    "aten::t",
    "aten::t_",
    "aten::mT",
    "aten::numpy_T",
    "aten::adjoint",
)
def transpose(call: Call) -> Value:
    x = call["self"]
    if x.rank < 2:
        return x
    dims = list(range(x.rank))
    if call.op == "aten::numpy_T":
        return _permute(x, dims[::-1])
    a = call.args.get("dim0", call.args.get("axis0", -2)) % x.rank
    b = call.args.get("dim1", call.args.get("axis1", -1)) % x.rank
    dims[a], dims[b] = dims[b], dims[a]
    return _permute(x, dims)


@rule("aten::movedim", "aten::moveaxis")
def movedim(call: Call) -> Value:
    x = call["self"]
    source, target = _tuple(call["source"]), _tuple(call["destination"])
    rest = [d for d in range(x.rank) if d not in [s % x.rank for s in source]]
    for t, s in sorted((t % x.rank, s % x.rank) for s, t in zip(source, target, strict=True)):
        rest.insert(t, s)
    return _permute(x, rest)


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@rule("aten::expand", "aten::broadcast_to")
def expand(call: Call) -> Value:
    x = pad_rank(call["self"], len(call.shape))
    return Value(call.shape, (*x.factors, *_copies(call, x)))


def _copies(call: Call, x: Value) -> list[Factor]:
    """Dims along which one element is copied fit any size, unless copies of something that may go lie next to it."""
    found = []
    for axis, (before, after) in enumerate(zip(x.shape, call.shape, strict=True)):
        if before == 1 and after > 1 and not x.along(axis - 1) and not (axis + 1 < x.rank and x.along(axis + 1)):
            shape = [1] * x.rank
            shape[axis] = after
            found.append(Factor(call.relations.fresh(*shape), axis))
    return found


@rewrite("aten::expand", "aten::broadcast_to")
def expand_size(cut: Cut) -> dict[str, Any]:
    return {"size": cut.new_shape()}


@rule("aten::repeat", "aten::tile")
def repeat(call: Call) -> Value:
    """Copies side by side: an index and its copies go together."""
    x = pad_rank(call["self"], len(call.shape))
    factors = []
    for f in x.factors:
        times = [
            n // m if f.labels.shape[d] > 1 else 1 for d, (n, m) in enumerate(zip(call.shape, x.shape, strict=True))
        ]
        factors.append(Factor(np.tile(f.labels, times), f.axis))
    return Value(call.shape, (*factors, *_copies(call, x)))


@rewrite("aten::repeat", "aten::tile")
def repeat_counts(cut: Cut) -> dict[str, Any]:
    """Copies of one element may be fewer; an index and its copies go together, so their number stays."""
    name = "repeats" if cut.call.op == "aten::repeat" else "dims"
    old = list(cut[name])
    x = pad_rank(cut["self"], cut.out.rank)
    new = [cut.kept.count(cut.out, d) if x.shape[d] == 1 else n for d, n in enumerate(_padded(old, cut.out.rank))]
    return {name: new[len(new) - len(old) :]}


def _padded(counts: list[int], rank: int) -> list[int]:
    return [1] * (rank - len(counts)) + counts


@rule("aten::repeat_interleave")
def repeat_interleave(call: Call) -> Value:
    """Every index followed by its copies."""
    x, dim = call.values()[0], call.get("dim")
    if dim is None:
        x, dim = reshape(call.relations, x, (int(np.prod(x.shape)),)), 0
    dim %= x.rank
    times, uneven = divmod(call.shape[dim], x.shape[dim])
    if uneven or not isinstance(call.get("repeats", times), int):
        call.relations.pin_all(x.along(dim), "repeated a different number of times by index")
        return Value(call.shape, tuple(f for f in x.factors if f.axis != dim and f.labels.shape[dim] == 1))
    factors = [
        Factor(np.repeat(f.labels, times, dim) if f.labels.shape[dim] > 1 else f.labels, f.axis) for f in x.factors
    ]
    return Value(call.shape, tuple(factors))


@rewrite("aten::repeat_interleave")
def repeated_size(cut: Cut) -> dict[str, Any]:
    if cut.call.get("output_size") is None:
        return {}
    return {"output_size": cut.kept.count(cut.out, cut.call.get("dim", 0) % cut.out.rank)}


@rule("aten::flip")
def flip(call: Call) -> Value:
    x = call["self"]
    dims = tuple(d % x.rank for d in call["dims"])
    return Value(x.shape, tuple(Factor(np.flip(f.labels, dims), f.axis) for f in x.factors))
