"""Positions gathered into windows: unfold and fold."""

from __future__ import annotations

import numpy as np

from compress.graph.labels import Factor, Value
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, mixing, only, rule

_REASON = "spatial dimension that is cut into windows"


@rule("aten::im2col")
def im2col(call: Call) -> Value:
    """(N, C, H, W) to (N, C k, L): each channel becomes k that go together."""
    x = call["self"]
    x = mixing(call, x, (-2, -1))
    factors = only(call, x, range(x.rank - 2), _REASON)
    axis, times = x.rank - 3, call.shape[-2] // x.shape[-3]
    found = []
    for f in factors:
        labels = f.labels.reshape((*f.labels.shape[:-2], 1))
        found.append(Factor(np.repeat(labels, times, axis) if labels.shape[axis] > 1 else labels, f.axis))
    return Value(call.shape, tuple(found))


@rule("aten::col2im")
def col2im(call: Call) -> Value:
    """(N, C k, L) to (N, C, H, W): whole blocks of k channels may go."""
    x = mixing(call, call["self"], (-1,))
    *lead, channels, positions = x.shape
    outputs = call.shape[-3]
    split = reshape(call.relations, x, (*lead, outputs, channels // outputs, positions))
    factors = only(call, split, range(len(lead) + 1), "becomes a spatial position in fold")
    found = [Factor(f.labels.reshape((*f.labels.shape[:-2], 1, 1)), f.axis) for f in factors]
    return Value(call.shape, tuple(found))


@rule("aten::unfold")
def unfold(call: Call) -> Value:
    """Windows along one dim; the position inside the window becomes the last dim."""
    x = call["self"]
    if not x.rank:
        return Value(call.shape)
    dim = call["dimension"] % x.rank
    x = mixing(call, x, [dim])
    factors = only(call, x, [d for d in range(x.rank) if d != dim], _REASON)
    return Value(call.shape, tuple(Factor(f.labels[..., None], f.axis) for f in factors))
