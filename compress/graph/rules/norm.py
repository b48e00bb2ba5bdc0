"""Normalisations: statistics are taken over what is kept."""

from __future__ import annotations

from typing import Any

from compress.graph.labels import Factor, Value, join, reduce
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, Cut, mixing, only, rewrite, rule


def per_channel(x: Value, vector: Value, axis: int = 1) -> Value:
    """A vector of channel parameters, shaped to broadcast along ``axis`` of ``x``."""
    shape = tuple(vector.shape[0] if d == axis else 1 for d in range(x.rank))
    return Value(shape, tuple(Factor(f.labels.reshape(shape), axis) for f in vector.factors))


@rule("aten::batch_norm", "aten::instance_norm", "aten::_native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> Value:
    """Running statistics belong to channels; statistics of the input itself are taken over all its positions."""
    out = call["input"]
    single = call.op == "aten::instance_norm"
    if call.get("use_input_stats" if single else "training", False):
        out = mixing(call, out, [d for d in range(out.rank) if d > 1 or (d == 0 and not single)])
        if single:
            out = Value(out.shape, only(call, out, (0, 1), "statistics are taken along this dimension"))
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = call.get(name)
        if vector is not None:
            out = join(call.relations, out, per_channel(out, vector))
    return Value(call.shape, out.factors)


@rule("aten::layer_norm", "aten::rms_norm")
def layer_norm(call: Call) -> Value:
    """Statistics over the last dims; weight and bias go with their index."""
    out = mixing(call, call["input"], range(-len(call["normalized_shape"]), 0))
    for name in ("weight", "bias"):
        if call.get(name) is not None:
            out = join(call.relations, out, call[name])
    return out


@rewrite("aten::layer_norm", "aten::rms_norm")
def normalized_shape(cut: Cut) -> dict[str, Any]:
    count = len(cut["normalized_shape"])
    return {"normalized_shape": list(cut.kept.shape(cut["input"])[-count:])}


@rule("aten::group_norm")
def group_norm(call: Call) -> Value:
    """Groups may go whole; what stays in each group is equal in number."""
    x, groups = call["input"], int(call["num_groups"])
    out = x
    if groups > 1:
        split = reshape(call.relations, x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
        out = reshape(call.relations, split, x.shape)
    for name in ("weight", "bias"):
        if call.get(name) is not None:
            out = join(call.relations, out, per_channel(out, call[name]))
    return out


@rewrite("aten::group_norm")
def num_groups(cut: Cut) -> dict[str, Any]:
    x, groups = cut["input"], int(cut["num_groups"])
    if groups == 1:
        return {}
    return {"num_groups": int(cut.kept.vector(x, 1).reshape(groups, -1).any(1).sum())}


@rule("aten::_weight_norm")
def weight_norm(call: Call) -> Value:
    """``g * v / |v|`` with one norm for every index of ``dim`` (-1: one for all), taken over what is kept."""
    v, dim = call["v"], int(call.get("dim", 0))
    reduce(call.relations, v, [d for d in range(v.rank) if dim == -1 or d != dim % v.rank], keepdim=True)
    return join(call.relations, v, call["g"])
