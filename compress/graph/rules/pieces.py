"""Taking a tensor apart along a dim and putting tensors together."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from compress.graph.labels import Factor, Value, join, match, permute_take
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, Cut, fixed, mixing, only, rewrite, rule


def cut_piece(call: Call, x: Value, dim: int, start: int, stop: int) -> Value:
    """Indices ``start:stop`` of ``dim``; at least one of them stays, in every block the same number."""
    factors = []
    for f in x.factors:
        labels = f.labels
        if stop <= start:  # of an empty piece only the other dims can get smaller
            if f.axis != dim and labels.shape[dim] > 1:
                call.relations.pin(labels, "an empty piece was cut from this dimension")
            elif f.axis != dim:
                factors.append(f)
            continue
        if labels.shape[dim] > 1:
            labels = np.take(labels, range(start, stop), axis=dim)
            if f.axis == dim:
                call.relations.nonempty(labels)
                call.relations.balance(labels, dim)
                if start:
                    call.relations.balance(np.take(f.labels, range(start), axis=dim), dim)
        if labels.shape[f.axis] == 1:
            call.relations.pin(labels, "the only index of a piece")
        else:
            factors.append(Factor(labels, f.axis))
    return Value((*x.shape[:dim], stop - start, *x.shape[dim + 1 :]), tuple(factors))


@rule(
    "aten::split",
    "aten::split_with_sizes",
    "aten::chunk",
    "aten::tensor_split",
    "aten::unsafe_split",
    "aten::unsafe_chunk",
)
def split(call: Call) -> tuple[Value, ...]:
    x = call["self"]
    dim = call.get("dim", 0) % x.rank
    start, out = 0, []
    for shape in call.shapes:
        out.append(cut_piece(call, x, dim, start, start + shape[dim]))
        start += shape[dim]
    return tuple(out)


def piece_sizes(cut: Cut) -> list[int]:
    """Sizes of the results of a split after slicing, along the dim that is split."""
    dim = cut.call.get("dim", 0) % cut["self"].rank
    starts = np.cumsum([0, *(o.shape[dim] for o in cut.outs)])
    return [cut.kept.count(cut["self"], dim, int(a), int(b)) for a, b in itertools.pairwise(starts)]


@rewrite(
    "aten::split",
    "aten::split_with_sizes",
    "aten::chunk",
    "aten::tensor_split",
    "aten::unsafe_split",
    "aten::unsafe_chunk",
)
def split_sizes(cut: Cut) -> dict[str, Any]:
    """Pieces may end up unequal, so any split becomes one with explicit sizes."""
    dim = cut.call.get("dim", 0) % cut["self"].rank
    if cut.kept.count(cut["self"], dim) == cut["self"].shape[dim]:
        return {}
    return {"@target": "aten::split_with_sizes", "split_sizes": piece_sizes(cut), "dim": dim, "self": ...}


@rule("aten::slice", "aten::narrow")
def slice_(call: Call) -> Value:
    x = call["self"]
    dim = call.get("dim", 0) % x.rank
    if isinstance(call.get("start"), Value):  # a tensor says where: no index along this dim may move
        x = mixing(call, x, [dim])
        call.relations.pin_all(x.along(dim), "cut at a place that the data names")
        return Value(call.shape, tuple(f for f in x.factors if f.axis != dim))
    start, stop, step = _bounds(call, x.shape[dim])
    if step == 1:
        return cut_piece(call, x, dim, start, stop)
    size = x.shape[dim]
    if x.along(dim) and size % step == 0 and start < step and stop > size - step + start:
        # Every step-th index of all: neighbours go together, so that what is left alternates as before.
        split = reshape(call.relations, x, (*x.shape[:dim], size // step, step, *x.shape[dim + 1 :]))
        whole = only(call, split, [d for d in range(split.rank) if d != dim + 1], "taken in steps")
        return take_index(call, Value(split.shape, whole), dim + 1, start)
    factors = []
    for f in x.factors:
        if f.axis == dim:
            call.relations.pin(f.labels, "taken in steps")
        else:
            labels = f.labels if f.labels.shape[dim] == 1 else np.take(f.labels, range(start, stop, step), axis=dim)
            factors.append(Factor(labels, f.axis))
    return Value(call.shape, tuple(factors))


def _bounds(call: Call, size: int) -> tuple[int, int, int]:
    if call.op == "aten::narrow":
        start = call["start"] % size if call["start"] < 0 else call["start"]
        return start, start + call["length"], 1
    start, stop, step = slice(call.get("start"), call.get("end"), call.get("step", 1)).indices(size)
    return start, max(stop, start), step


@rewrite("aten::slice", "aten::narrow")
def slice_bounds(cut: Cut) -> dict[str, Any]:
    x = cut["self"]
    dim = cut.call.get("dim", 0) % x.rank
    if cut.kept.count(x, dim) == x.shape[dim]:  # open ends and sizes of the batch stay as they are
        return {}
    start, stop, step = _bounds(cut.call, x.shape[dim])
    if step > 1:  # whole steps went
        return {"end": cut.kept.count(x, dim)}
    first, length = cut.kept.count(x, dim, 0, start), cut.kept.count(x, dim, start, stop)
    if cut.call.op == "aten::narrow":
        return {"start": first, "length": length}
    return {"start": first, "end": first + length}


def take_index(call: Call, x: Value, dim: int, index: int) -> Value:
    """``x.select(dim, index)``: that index stays, the others may go."""
    factors = []
    for f in x.factors:
        labels = f.labels if f.labels.shape[dim] == 1 else np.take(f.labels, [index], axis=dim)
        if f.axis == dim:
            call.relations.pin(labels, "picked by its index")
        else:
            factors.append(Factor(labels, f.axis))
    flat = Value((*x.shape[:dim], 1, *x.shape[dim + 1 :]), tuple(factors))
    return permute_take(flat, [d for d in range(x.rank) if d != dim])


@rule("aten::select")
def select(call: Call) -> Value:
    x = call["self"]
    dim = call["dim"] % x.rank
    return take_index(call, x, dim, call["index"] % x.shape[dim])


@rewrite("aten::select")
def select_index(cut: Cut) -> dict[str, Any]:
    x = cut["self"]
    dim = cut["dim"] % x.rank
    return {"index": cut.kept.count(x, dim, 0, cut["index"] % x.shape[dim])}


@rule("aten::unbind")
def unbind(call: Call) -> tuple[Value, ...]:
    x = call["self"]
    dim = call.get("dim", 0) % x.rank
    return tuple(take_index(call, x, dim, i) for i in range(x.shape[dim]))


@rule("aten::glu")
def glu(call: Call) -> Value:
    x = call["self"]
    dim = call.get("dim", -1) % x.rank
    half = x.shape[dim] // 2
    return join(call.relations, cut_piece(call, x, dim, 0, half), cut_piece(call, x, dim, half, 2 * half))


@rule("aten::cat", "aten::concat", "aten::concatenate")
def cat(call: Call) -> Value:
    values = [v for v in call["tensors"] if v.shape != (0,)] or list(call["tensors"])
    return concatenate(call, values, call.get("dim", 0) % values[0].rank)


def concatenate(call: Call, values: list[Value], dim: int) -> Value:
    """Along ``dim`` the labels are put side by side; along the other dims all pieces agree."""
    rank = values[0].rank
    factors: list[Factor] = []
    for axis in range(rank):
        columns = [v.along(axis) for v in values]
        if not any(columns):
            continue
        factors += _side_by_side(columns, values, dim) if axis == dim else _agreeing(call, columns, dim)
    shape = list(values[0].shape)
    shape[dim] = sum(v.shape[dim] for v in values)
    return Value(tuple(shape), tuple(factors))


def _side_by_side(columns: list[list[Factor]], values: list[Value], dim: int) -> list[Factor]:
    """The finest factors are lined up; a piece with fewer of them is filled with the label that always stays."""
    depth = max(len(c) for c in columns)
    out = []
    for level in range(depth):
        parts = []
        for column, value in zip(columns, values, strict=True):
            i = level - (depth - len(column))
            labels = column[i].labels if i >= 0 else np.zeros((1,) * value.rank, dtype=np.int64)
            target = list(labels.shape)
            target[dim] = value.shape[dim]
            parts.append(np.broadcast_to(labels, target))
        common = np.broadcast_shapes(*(tuple(1 if d == dim else n for d, n in enumerate(p.shape)) for p in parts))
        wide = [np.broadcast_to(p, (*common[:dim], p.shape[dim], *common[dim + 1 :])) for p in parts]
        out.append(Factor(np.concatenate(wide, axis=dim), dim))
    return out


def _agreeing(call: Call, columns: list[list[Factor]], dim: int) -> list[Factor]:
    aligned = []
    for column in columns:
        aligned.append(
            [
                Factor(call.relations.align(f.labels, dim) if f.labels.shape[dim] > 1 else f.labels, f.axis)
                for f in column
            ]
        )
    out = aligned[0]
    for column in aligned[1:]:
        out = match(call.relations, out, column)
    return out


_SIDEWAYS = {"hstack": 1, "column_stack": 1, "vstack": 0, "row_stack": 0, "dstack": 2}


@rule(*(f"aten::{name}" for name in _SIDEWAYS))
def sideways(call: Call) -> Value:
    """Concatenation along a dim that the name tells; tensors that lack it get it first."""
    values, dim = list(call["tensors"]), _SIDEWAYS[call.op.removeprefix("aten::")]
    if min(v.rank for v in values) > max(dim, 1):
        return concatenate(call, values, dim)
    if call.op == "aten::hstack" and values[0].rank == 1:
        return concatenate(call, values, 0)
    result = fixed(call, "stacked along a new dimension")
    return result if isinstance(result, Value) else result[0]


@rule("aten::stack")
def stack(call: Call) -> Value:
    values = list(call["tensors"])
    dim = call.get("dim", 0) % (values[0].rank + 1)
    shape = values[0].shape
    wider = [reshape(call.relations, v, (*shape[:dim], 1, *shape[dim:])) for v in values]
    return _stacked(call, wider, dim)


def _stacked(call: Call, values: list[Value], dim: int) -> Value:
    """Like ``cat`` of size-1 pieces, but each keeps labels of its own: as many in one as in the other."""
    first = values[0]
    if any(len(v.factors) != len(first.factors) for v in values):
        return concatenate(call, values, dim)
    factors = []
    for column in zip(*(v.factors for v in values), strict=True):
        if len({f.axis for f in column}) > 1 or len({f.labels.shape for f in column}) > 1:
            return concatenate(call, values, dim)
        labels = np.concatenate([f.labels for f in column], axis=dim)
        call.relations.balance(labels, column[0].axis)
        factors.append(Factor(labels, column[0].axis))
    return Value(call.shape, tuple(factors))
