"""Further sums of products: bilinear layers, distances, tensordot, products with vectors."""

from __future__ import annotations

import string

import numpy as np

from compress.graph.labels import Factor, Value, contract, join, reduce
from compress.graph.rules.registry import Call, Result, fixed, mixing, only, rule


@rule("aten::tensordot")
def tensordot(call: Call) -> Value:
    x, y = call["self"], call["other"]
    letters = iter(string.ascii_letters)
    x_axes = [next(letters) for _ in range(x.rank)]
    y_axes = [next(letters) for _ in range(y.rank)]
    for a, b in zip(call["dims_self"], call["dims_other"], strict=True):
        y_axes[b % y.rank] = x_axes[a % x.rank]
    out = [a for a in x_axes if a not in y_axes] + [a for a in y_axes if a not in x_axes]
    return contract(call.relations, [(x, x_axes), (y, y_axes)], out)


@rule("aten::bilinear")
def bilinear(call: Call) -> Value:
    """(.., I) and (.., J) with a weight (O, I, J) give (.., O)."""
    x, y = call["input1"], call["input2"]
    lead = string.ascii_uppercase[: x.rank - 1]
    out = contract(call.relations, [(x, lead + "i"), (call["weight"], "oij"), (y, lead + "j")], lead + "o")
    bias = call.get("bias")
    return out if bias is None else join(call.relations, out, bias)


@rule("aten::cdist")
def distances(call: Call) -> Value:
    """(.., P, M) and (.., R, M) give (.., P, R); a removed feature no longer adds to any distance."""
    x, y = call["x1"], call["x2"]
    lead = string.ascii_uppercase[: max(x.rank, y.rank) - 2]
    x_axes, y_axes = lead[len(lead) - (x.rank - 2) :] + "pm", lead[len(lead) - (y.rank - 2) :] + "rm"
    return contract(call.relations, [(x, x_axes), (y, y_axes)], lead + "pr")


@rule("aten::mv")
def matrix_times_vector(call: Call) -> Value:
    return contract(call.relations, [(call["self"], "oi"), (call["vec"], "i")], "o")


@rule("aten::inner")
def inner(call: Call) -> Value:
    x, y = call["self"], call["other"]
    if not x.rank or not y.rank:
        return join(call.relations, x, y)
    lead, more = string.ascii_uppercase[: x.rank - 1], string.ascii_lowercase[: y.rank - 1]
    return contract(call.relations, [(x, lead + "z"), (y, more + "z")], lead + more)


@rule("aten::cosine_similarity", "aten::pairwise_distance")
def compared_along(call: Call) -> Value:
    """One number for every pair of vectors; what is removed of both no longer counts."""
    both = join(call.relations, call["x1"], call["x2"])
    axis = call.get("dim", 1) if call.op == "aten::cosine_similarity" else -1
    return reduce(call.relations, both, [axis], keepdim=bool(call.get("keepdim", False)))


_EIGHT = 8  # rows of a grouped product take multiples of 16 bytes, in bfloat16 and wider


@rule("aten::_grouped_mm")
def product_of_experts(call: Call) -> Result:
    """Rows (S, K), sorted by expert, times the matrix of their expert (E, K, N).

    Every expert stays, and features go in eights, because the operation takes no other widths.
    """
    x, weights = call["self"], call["mat2"]
    if x.rank != 2 or weights.rank != 3 or weights.shape[1] % _EIGHT or weights.shape[2] % _EIGHT:
        return fixed(call, "a grouped product whose widths are no multiples of eight")
    kept = only(call, mixing(call, weights, [0]), (1, 2), "experts that the data chooses between")
    for f in kept:
        eights = np.moveaxis(f.labels, f.axis, -1).reshape(-1, f.labels.shape[f.axis] // _EIGHT, _EIGHT)
        call.relations.equal(eights, eights[..., :1])
    factors = tuple(Factor(f.labels.reshape(f.labels.shape[1:]), f.axis - 1) for f in kept)
    out = contract(call.relations, [(x, "sk"), (Value(weights.shape[1:], factors), "kn")], "sn")
    bias = call.get("bias")
    return out if bias is None else join(call.relations, out, bias)
