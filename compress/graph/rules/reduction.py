"""Sums, means and other reductions, and the operations that compare along a dim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.graph.labels import Value, join_all, permute_take, reduce
from compress.graph.rules.registry import Call, Result, mixing, rule


def _axes(call: Call, x: Value) -> list[int]:
    dim = call.get("dim")
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.rank))
    return [d % max(x.rank, 1) for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


@rule("aten::sum", "aten::mean", "aten::linalg_vector_norm", "aten::norm")
def additive(call: Call) -> Result:
    """What is removed no longer counts; a mean is the mean of what is kept."""
    x = call["self"]
    power = call.get("ord", call.get("p", 2))
    if "norm" in call.op and isinstance(power, (int, float)) and power < 0:  # zeros would count
        return comparing(call)
    return _reduced(call, x)


def _reduced(call: Call, x: Value) -> Result:
    """Every result of a reduction over the dims that the call names."""
    keepdim = len(call.shape) == x.rank and x.rank > 0
    out = reduce(call.relations, x, _axes(call, x), keepdim)
    results = tuple(Value(shape, out.factors) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


@rule("aten::var", "aten::std", "aten::var_mean", "aten::std_mean")
def spread(call: Call) -> Result:
    """Statistics of what is kept; where they divide by one less than the number, two stay."""
    x = call["self"]
    gone = _axes(call, x)
    if spread_correction(call.args):
        for factor in x.factors:
            if factor.axis in gone:
                rows = np.moveaxis(factor.labels, factor.axis, -1).reshape(-1, factor.labels.shape[factor.axis])
                for half in np.array_split(rows[0], 2):  # all rows keep as many as the first
                    call.relations.nonempty(half)
    return _reduced(call, x)


def spread_correction(args: Mapping[str, Any]) -> float:
    """What a variance subtracts from the number of elements before it divides: 1 unless told otherwise."""
    if args.get("correction") is not None:
        return float(args["correction"])
    return float(args.get("unbiased", True))


@rule("aten::amax", "aten::amin", "aten::max", "aten::min")
def extreme(call: Call) -> Result:
    """The extreme of what is kept, unless its position is asked for; of two tensors it is pointwise."""
    values = call.values()
    if len(values) > 1:
        return join_all(call.relations, values)
    if len(call.shapes) > 1 and 1 not in call.unread:
        return comparing(call)
    return _reduced(call, values[0])


@rule("aten::cumsum")
def running_sum(call: Call) -> Value:
    """What is removed no longer adds to the sums behind it."""
    x = call["self"]
    return mixing(call, x, [call["dim"]]) if x.rank else x


@rule(
    "aten::argmax",
    "aten::argmin",
    "aten::prod",
    "aten::logsumexp",
    "aten::any",
    "aten::all",
)
def comparing(call: Call) -> Result:
    """The result depends on every element of the reduced dims, so these stay; the other dims may shrink."""
    x = call.values()[0]
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
