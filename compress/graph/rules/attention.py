"""Scaled dot-product attention as one operation."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np

from compress.graph.labels import Factor, Value, contract, join
from compress.graph.rules.registry import Call, Cut, mixing, rewrite, rule


def _share_heads(x: Value, heads: int) -> Value:
    """Key or value heads repeated for the query heads that share them."""
    axis = x.rank - 3
    times = heads // x.shape[axis]
    if times == 1:
        return x
    factors = tuple(
        Factor(np.repeat(f.labels, times, axis) if f.labels.shape[axis] > 1 else f.labels, f.axis) for f in x.factors
    )
    return Value((*x.shape[:axis], heads, *x.shape[axis + 1 :]), factors)


@rule("aten::scaled_dot_product_attention")
def attention(call: Call) -> Value:
    """Query and key share their features, all three share their heads; positions stay."""
    q, k, v = call["query"], call["key"], call["value"]
    if call.get("enable_gqa", False):
        k, v = _share_heads(k, q.shape[-3]), _share_heads(v, q.shape[-3])
    lead = string.ascii_uppercase[: q.rank - 2]
    scores = contract(call.relations, [(q, lead + "ld"), (k, lead + "sd")], lead + "ls")
    if call.get("attn_mask") is not None:
        scores = join(call.relations, scores, call["attn_mask"])
    for factor in scores.factors:
        if factor.axis == scores.rank - 1:
            call.relations.pin(factor.labels, "normalised by a softmax")
    scores = Value(scores.shape, tuple(f for f in scores.factors if f.axis != scores.rank - 1))
    scores = mixing(call, scores, [-1])
    return contract(call.relations, [(scores, lead + "ls"), (v, lead + "sd")], lead + "ld")


@rewrite("aten::scaled_dot_product_attention")
def frozen_scale(cut: Cut) -> dict[str, Any]:
    """The scale stays what it was: the network was trained with it."""
    if cut.call.get("scale") is not None:
        return {}
    query = cut["query"]
    if cut.kept.count(query, query.rank - 1) == query.shape[-1]:
        return {}
    return {"scale": 1.0 / math.sqrt(query.shape[-1])}
