"""Elements picked, replaced or added by tensors of indices."""

from __future__ import annotations

from compress.graph.labels import Factor, Value, match
from compress.graph.rules.registry import Call, mixing, rule

_REASON = "looked up by index"


def _without(call: Call, x: Value, dim: int) -> Value:
    """``x`` as an operation needs it that moves positions along ``dim``: nothing along it may go."""
    x = mixing(call, x, [dim])
    call.relations.pin_all(x.along(dim), _REASON)
    return Value(x.shape, tuple(f for f in x.factors if f.axis != dim))


def _together(call: Call, x: Value, y: Value, dim: int) -> tuple[Factor, ...]:
    """Factors along all dims but ``dim``, along which both tensors lose the same indices."""
    factors: list[Factor] = []
    for axis in range(x.rank):
        if axis == dim:
            continue
        if x.shape[axis] == y.shape[axis]:
            factors += match(call.relations, x.along(axis), y.along(axis)) if x.along(axis) or y.along(axis) else []
        else:
            call.relations.pin_all([*x.along(axis), *y.along(axis)], "only a part is looked up along this dimension")
    return tuple(factors)


@rule("aten::gather", "aten::take_along_dim")
def gather(call: Call) -> Value:
    """Along the other dims the index is as long as the tensor and shrinks with it."""
    x, index = call["self"], call.get("index", call.get("indices"))
    if call.get("dim") is None or not x.rank:
        call.relations.pin_all([*x.factors, *index.factors], _REASON)
        return Value(call.shape)
    dim = call["dim"] % x.rank
    found = _together(call, _without(call, x, dim), _without(call, index, dim), dim)
    return Value(call.shape, found)


@rule("aten::index_add", "aten::index_copy", "aten::index_fill")
def written_by_index(call: Call) -> Value:
    """Whole slices along ``dim`` are replaced; the other dims pass."""
    x = call["self"]
    if not x.rank:
        return x
    dim = call["dim"] % x.rank
    call.relations.pin_all(call["index"].factors, _REASON)
    x = _without(call, x, dim)
    source = call.get("source")
    if not isinstance(source, Value):
        return x
    return Value(call.shape, _together(call, x, _without(call, source, dim), dim))


@rule("aten::scatter", "aten::scatter_add")
def scatter(call: Call) -> Value:
    """Along the other dims index and source are as long as the tensor and shrink with it."""
    x = call["self"]
    if not x.rank:
        return x
    dim = call["dim"] % x.rank
    x = _without(call, x, dim)
    for other in (call["index"], call.get("src")):
        if isinstance(other, Value):
            x = Value(x.shape, _together(call, x, _without(call, other, dim), dim))
    return x
