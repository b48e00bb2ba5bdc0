"""Sums, means and other reductions, and the operations that compare along a dim."""

from __future__ import annotations

from compress.graph.labels import Value, permute_take, reduce
from compress.graph.rules.registry import Call, Result, mixing, rule


def _axes(call: Call, x: Value) -> list[int]:
    dim = call.get("dim")
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.rank))
    return [d % max(x.rank, 1) for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


@rule("aten::sum", "aten::mean", "aten::linalg_vector_norm", "aten::norm")
def additive(call: Call) -> Value:
    """What is removed no longer counts; a mean is the mean of what is kept."""
    x = call["self"]
    keepdim = len(call.shape) == x.rank and x.rank > 0
    return reduce(call.relations, x, _axes(call, x), keepdim)


@rule(
    "aten::amax",
    "aten::amin",
    "aten::max",
    "aten::min",
    "aten::argmax",
    "aten::argmin",
    "aten::std",
    "aten::var",
    "aten::var_mean",
    "aten::std_mean",
    "aten::prod",
    "aten::logsumexp",
    "aten::any",
    "aten::all",
)
def comparing(call: Call) -> Result:
    """The result depends on every element of the reduced dims, so these stay; the other dims may shrink."""
    values = call.values()
    x = values[0]
    if len(values) > 1:  # max(x, y) and min(x, y) are pointwise
        from compress.graph.labels import join_all

        return join_all(call.relations, values)
    gone = set(_axes(call, x))
    for factor in x.factors:
        if factor.axis in gone:
            call.relations.pin(factor.labels, "compared or normalised along this dimension")
    out = reduce(call.relations, x, gone, keepdim=True)
    if len(call.shape) != x.rank:
        out = permute_take(out, [d for d in range(x.rank) if d not in gone])
    results = tuple(Value(shape, out.factors) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


@rule(
    "aten::softmax",
    "aten::log_softmax",
    "aten::_softmax",
    "aten::_log_softmax",
    "aten::cumsum",
    "aten::sort",
    "aten::argsort",
    "aten::topk",
    "aten::cumprod",
)
def along_dim(call: Call) -> Result:
    """Every element along ``dim`` takes part, so nothing along it is removed."""
    x = call.values()[0]
    dim = call.get("dim", -1) % max(x.rank, 1)
    x = mixing(call, x, [dim]) if x.rank else x
    kept = []
    for factor in x.factors:
        if factor.axis == dim:
            call.relations.pin(factor.labels, "normalised or ordered along this dimension")
        else:
            kept.append(factor)
    results = tuple(Value(shape, tuple(kept)) for shape in call.shapes)
    return results[0] if len(results) == 1 else results
