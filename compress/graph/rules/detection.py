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
    """``x[idx] = values`` with index tensors on leading dims: those stay, the others are shared with the values."""
    x, values = call["self"], call["values"]
    indices = list(call["indices"])
    if None in indices or any(i.factors for i in indices):
        for value in (x, values):
            call.relations.pin_all(value.factors, "written at indices in a way that has no rule")
        return Value(call.shape)
    count = len(indices)
    inserted = max(i.rank for i in indices)
    kept = only(call, mixing(call, x, range(count)), range(count, x.rank), "written at places that the data names")
    shape = (1,) * inserted + x.shape[count:]
    moved = tuple(
        Factor(f.labels.reshape((*(1,) * inserted, *f.labels.shape[count:])), f.axis - count + inserted) for f in kept
    )
    join(call.relations, Value(shape, moved), values)
    return Value(call.shape, kept)
