"""What detectors do between their layers: features pooled from boxes, results put at places that the data names."""

from __future__ import annotations

from compress.graph.labels import Factor, Value, join
from compress.graph.rules.registry import Call, mixing, only, rule


@rule("torchvision::roi_align", "torchvision::roi_pool")
def pooled_from_boxes(call: Call) -> Value:
    """(N, C, H, W) and boxes (K, 5) to (K, C, h, w): channels pass, boxes keep their five numbers."""
    x = mixing(call, call["input"], (0, 2, 3))
    call.relations.pin_all(call["rois"].factors, "a coordinate of a box")
    return Value(call.shape, only(call, x, (1,), "an image or position that boxes are pooled from"))


@rule("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put")
def index_put(call: Call) -> Value:
    """``x[:, idx] = values`` with one run of index tensors: those dims stay, the others are shared with the values."""
    x, values, indices = call["self"], call["values"], list(call["indices"])
    used = [d for d, i in enumerate(indices) if i is not None]
    given = [indices[d] for d in used]
    masks = any(i.rank > 1 and i.shape == x.shape[used[0] : used[0] + i.rank] for i in given)  # as far as can be told
    if masks or used != list(range(used[0], used[0] + len(used))) or any(i.factors for i in given):
        for value in (x, values):
            call.relations.pin_all(value.factors, "written at indices in a way that has no rule")
        return Value(call.shape)
    start, stop = used[0], used[-1] + 1
    places = (1,) * max(i.rank for i in given)
    others = [d for d in range(x.rank) if d not in used]
    kept = only(call, mixing(call, x, used), others, "written at places that the data names")
    moved = []
    for f in kept:
        labels = f.labels.reshape((*f.labels.shape[:start], *places, *f.labels.shape[stop:]))
        moved.append(Factor(labels, f.axis if f.axis < start else f.axis - len(used) + len(places)))
    join(call.relations, Value((*x.shape[:start], *places, *x.shape[stop:]), tuple(moved)), values)
    return Value(call.shape, kept)
