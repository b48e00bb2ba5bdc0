"""Look-ups by index tensors, embeddings, rolls."""

from __future__ import annotations

from compress.graph.labels import Factor, Value, permute_take
from compress.graph.rules.registry import Call, Result, fixed, mixing, only, rule


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
    if not used or used != list(range(used[0], used[-1] + 1)) or any(i.factors for i in indices if i is not None):
        return fixed(call, "indexed in a way that has no rule")
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
    x = call["self"]
    dim = call["dim"] % x.rank
    factors = []
    for f in mixing(call, x, [dim]).factors:
        if f.axis == dim:
            call.relations.pin(f.labels, "looked up by index")
        else:
            factors.append(f)
    return Value(call.shape, tuple(factors))


@rule("aten::roll")
def roll(call: Call) -> Value:
    x = call["self"]
    dims = [d % x.rank for d in call["dims"]] if call.get("dims") else list(range(x.rank))
    factors = []
    for f in mixing(call, x, dims).factors:
        if f.axis in {d % x.rank for d in dims}:
            call.relations.pin(f.labels, "rolled along this dimension")
        else:
            factors.append(f)
    return Value(x.shape, tuple(factors))


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
