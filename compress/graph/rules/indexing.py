"""Look-ups by index tensors, embeddings, rolls."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.graph.labels import Factor, Labels, Value, permute_take
from compress.graph.rules.registry import Call, Cut, Result, fixed, mixing, only, rewrite, rule


@rule("aten::embedding")
def embedding(call: Call) -> Value:
    """Rows are picked by data and stay; columns are the features."""
    weight = call["weight"]
    lead = (1,) * (len(call.shape) - 1)
    factors = []
    for f in weight.factors:
        if f.axis == 1:
            factors.append(Factor(f.labels.reshape((*lead, -1)), len(lead)))
        else:
            call.relations.pin(f.labels, "rows are looked up by the data")
    return Value(call.shape, tuple(factors))


@rule("aten::index", "aten::_unsafe_index")
def index(call: Call) -> Result:
    """``x[:, idx]`` with one run of neighbouring index tensors; the indexed dims stay, the others may shrink."""
    x = call["self"]
    indices = list(call["indices"])
    used = [d for d, i in enumerate(indices) if i is not None]
    if not used or used != list(range(used[0], used[-1] + 1)):
        return fixed(call, "indexed in a way that has no rule")
    for d in used:
        call.relations.pin_all(indices[d].factors, "numbers of indices")
    inserted = len(call.shape) - (x.rank - len(used))
    if inserted != max(i.rank for i in indices if i is not None):
        return fixed(call, "indexed by a mask over several dimensions")
    x = mixing(call, x, used)
    factors = []
    for f in x.factors:
        if f.axis in used:
            call.relations.pin(f.labels, "looked up by index")
            continue
        before, after = f.labels.shape[: used[0]], f.labels.shape[used[-1] + 1 :]
        axis = f.axis if f.axis < used[0] else f.axis - len(used) + inserted
        factors.append(Factor(f.labels.reshape((*before, *(1,) * inserted, *after)), axis))
    return Value(call.shape, tuple(factors))


@rule("aten::index_select")
def index_select(call: Call) -> Value:
    """What is looked up stays; a selection of input features, which carries labels, may get shorter.

    So may a constant list of indices: each entry goes with what it names.
    """
    x = call["self"]
    dim = call["dim"] % x.rank
    small = [1] * x.rank
    small[dim] = -1
    listed = call["index"]
    if listed.index is not None and x.along(dim):
        return _listed(call, mixing(call, x, [dim]), dim, listed, listed.index)
    if listed.index is not None:
        call.relations.pin_all(listed.factors, "lists indices of a tensor whose size is given")
        listed = Value(listed.shape)
    factors = [Factor(f.labels.reshape(small), dim) for f in listed.factors]
    for f in mixing(call, x, [dim]).factors:
        if f.axis == dim:
            call.relations.pin(f.labels, "looked up by index")
        else:
            factors.append(f)
    return Value(call.shape, tuple(factors))


def _listed(call: Call, x: Value, dim: int, listed: Value, numbers: Labels) -> Value:
    """The labels that a list names, side by side; an entry goes as soon as one of its labels does."""
    relations, small = call.relations, [1] * x.rank
    small[dim] = -1
    picked = []
    for factor in x.along(dim):
        labels = factor.labels
        for axis in factor.blocks():  # one list for all blocks
            labels = relations.align(labels, axis)
        picked.append(np.take(labels, numbers, axis=dim))
    if listed.factors:
        relations.define(listed.factors[0].labels.reshape(small), picked)
    else:
        for labels in picked:
            relations.pin(labels, "the only index of a list")
    others = [f for f in x.factors if f.axis != dim]
    return Value(call.shape, (*others, *(Factor(labels, dim) for labels in picked)))


@rule("aten::roll")
def roll(call: Call) -> Value:
    """The last indices come first; how many that are follows what is kept of them."""
    x = call["self"]
    if not call.get("dims"):
        call.relations.pin_all(x.factors, "rolled across dimensions")
        return Value(x.shape)
    factors = x.factors
    for shift, dim in _turns(call):
        moved = []
        for f in factors:
            if f.axis == dim:
                for piece in np.split(f.labels, [x.shape[dim] - shift], axis=dim):
                    call.relations.balance(piece, dim)
            moved.append(Factor(np.roll(f.labels, shift, dim) if f.labels.shape[dim] > 1 else f.labels, f.axis))
        factors = tuple(moved)
    return Value(x.shape, factors)


def _turns(call: Call) -> list[tuple[int, int]]:
    """(Shift, dim), both counted from the front."""
    x = call["self"]
    dims = [d % x.rank for d in call["dims"]]
    return [(shift % x.shape[d], d) for shift, d in zip(call["shifts"], dims, strict=True)]


@rewrite("aten::roll")
def turns(cut: Cut) -> dict[str, Any]:
    x = cut["self"]
    if not cut.call.get("dims"):
        return {}
    new = [
        old if cut.kept.count(x, d) == x.shape[d] else cut.kept.count(x, d, x.shape[d] - shift)
        for old, (shift, d) in zip(cut["shifts"], _turns(cut.call), strict=True)
    ]
    return {"shifts": new}


@rule("aten::tril", "aten::triu")
def triangle(call: Call) -> Value:
    """Half of a matrix is kept by position, so its rows and columns stay."""
    x = call["self"]
    return Value(x.shape, only(call, x, range(x.rank - 2), "a triangle of this dimension is set to zero"))


@rule("aten::diagonal")
def diagonal(call: Call) -> Value:
    x = call["self"]
    gone = [call.get("dim1", 0) % x.rank, call.get("dim2", 1) % x.rank]
    kept = only(call, mixing(call, x, gone), [d for d in range(x.rank) if d not in gone], "on the diagonal")
    rest = permute_take(Value(x.shape, kept), [d for d in range(x.rank) if d not in gone])
    return Value(call.shape, tuple(Factor(f.labels[..., None], f.axis) for f in rest.factors))
