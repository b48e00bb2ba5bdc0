"""Operations over spatial positions: pooling, resampling, padding, pixel shuffle."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.graph.labels import Factor, Value, join, permute_take
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, Cut, Result, mixing, only, rewrite, rule

_SPATIAL = {
    f"aten::{name}{n}d": n
    for n in (1, 2, 3)
    for name in (
        "max_pool",
        "avg_pool",
        "adaptive_avg_pool",
        "adaptive_max_pool",
        "lp_pool",
        "reflection_pad",
        "replication_pad",
        "upsample_nearest",
        "_upsample_nearest_exact",
    )
}
_SPATIAL |= {f"aten::max_pool{n}d_with_indices": n for n in (2, 3)}
_SPATIAL |= {
    "aten::upsample_linear1d": 1,
    "aten::upsample_bilinear2d": 2,
    "aten::_upsample_bilinear2d_aa": 2,
    "aten::upsample_bicubic2d": 2,
    "aten::_upsample_bicubic2d_aa": 2,
    "aten::upsample_trilinear3d": 3,
}


@rule(*_SPATIAL)
def spatial(call: Call) -> Result:
    """Channels pass; labels on spatial dims stay."""
    x = call.values()[0]
    x = mixing(call, x, range(x.rank - _SPATIAL[call.op], x.rank))
    factors = only(call, x, range(x.rank - _SPATIAL[call.op]), "spatial dimension that is pooled or resampled")
    results = tuple(Value(shape, factors) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


@rule("aten::pad", "aten::constant_pad_nd")
def pad(call: Call) -> Value:
    """Padding a labelled dim with a constant adds indices that may be removed like any other.

    Where what goes differs by block (features by head) the new indices stay.
    """
    x, amounts = call["self"], list(call["pad"])
    constant = call.op == "aten::constant_pad_nd" or call.get("mode", "constant") == "constant"
    factors = []
    for f in x.factors:
        labels, ok = f.labels, True
        for i in range(len(amounts) // 2):
            axis = x.rank - 1 - i
            front, back = amounts[2 * i], amounts[2 * i + 1]
            if labels.shape[axis] == 1 or not (front or back):
                continue
            if axis == f.axis and constant and front >= 0 and back >= 0:
                labels = _padded(call, labels, axis, front, back, bool(f.blocks()))
            else:
                call.relations.pin(f.labels, "padded along this dimension")
                ok = False
        if ok:
            factors.append(Factor(labels, f.axis))
    return Value(call.shape, tuple(factors))


def _padded(call: Call, labels: Any, axis: int, front: int, back: int, stay: bool) -> Any:
    shape = list(labels.shape)
    parts = []
    for count in (front, back):
        shape[axis] = count
        parts.append(np.zeros(shape, dtype=np.int64) if stay else call.relations.fresh(*shape))
    return np.concatenate([parts[0], labels, parts[1]], axis=axis)


@rewrite("aten::pad", "aten::constant_pad_nd")
def pad_amounts(cut: Cut) -> dict[str, Any]:
    amounts = list(cut["pad"])
    for i in range(len(amounts) // 2):
        axis = cut.out.rank - 1 - i
        size = cut.out.shape[axis]
        if not cut["self"].along(axis) or not (amounts[2 * i] or amounts[2 * i + 1]):
            continue
        front, back = amounts[2 * i], amounts[2 * i + 1]
        amounts[2 * i] = cut.kept.count(cut.out, axis, 0, front)
        amounts[2 * i + 1] = cut.kept.count(cut.out, axis, size - back, size)
    return {"pad": amounts}


@rule("aten::pixel_shuffle")
def pixel_shuffle(call: Call) -> Value:
    """(.., C r r, H, W) to (.., C, H r, W r): whole blocks of r r channels may go."""
    x, r = call["self"], int(call["upscale_factor"])
    lead, (c, h, w) = x.shape[:-3], x.shape[-3:]
    n = len(lead)
    split = reshape(call.relations, x, (*lead, c // (r * r), r, r, h, w))
    split = Value(split.shape, only(call, split, range(n + 1), "becomes a spatial position in pixel_shuffle"))
    moved = permute_take(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return reshape(call.relations, moved, call.shape)


@rule("aten::pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Value:
    """(.., C, H r, W r) to (.., C r r, H, W): each channel becomes r r channels that go together."""
    x, r = call["self"], int(call["downscale_factor"])
    x = mixing(call, x, (-2, -1))
    factors = only(call, x, range(x.rank - 2), "spatial dimension of pixel_unshuffle")
    axis = x.rank - 3
    out = [Factor(np.repeat(f.labels, r * r, axis) if f.labels.shape[axis] > 1 else f.labels, f.axis) for f in factors]
    return Value(call.shape, tuple(out))


@rule("aten::channel_shuffle")
def channel_shuffle(call: Call) -> Value:
    x, groups = call["self"], int(call["groups"])
    n, c = x.shape[:2]
    split = reshape(call.relations, x, (n, groups, c // groups, *x.shape[2:]))
    moved = permute_take(split, [0, 2, 1, *range(3, split.rank)])
    return reshape(call.relations, moved, x.shape)


@rewrite("aten::channel_shuffle")
def shuffled_groups(cut: Cut) -> dict[str, Any]:
    groups = int(cut["groups"])
    return {"groups": int(cut.kept.vector(cut["self"], 1).reshape(groups, -1).any(1).sum())}


@rule("aten::max_unpool2d", "aten::max_unpool3d")
def unpool(call: Call) -> Value:
    """Back to the positions where a pooling found its maxima; these shrink with the channels."""
    n = 2 if call.op.endswith("2d") else 3
    x = join(call.relations, call["self"], call["indices"])
    x = mixing(call, x, range(x.rank - n, x.rank))
    return Value(call.shape, only(call, x, range(x.rank - n), "spatial dimension that is pooled or resampled"))


@rule("aten::affine_grid_generator")
def grid(call: Call) -> Value:
    call.relations.pin_all(call["theta"].factors, "where to sample")
    return Value(call.shape)


@rule("aten::grid_sampler")
def sampled(call: Call) -> Value:
    """Positions picked by a grid; channels pass."""
    x, grid = call["input"], call["grid"]
    call.relations.pin_all(grid.factors, "where to sample")
    x = mixing(call, x, range(2, x.rank))
    return Value(call.shape, only(call, x, (0, 1), "spatial dimension that is sampled"))
