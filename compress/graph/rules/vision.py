"""Operations of torchvision: features of regions."""

from __future__ import annotations

from compress.graph.labels import Factor, Value
from compress.graph.rules.registry import Call, Result, mixing, rule


@rule("torchvision::roi_align", "torchvision::roi_pool")
def features_of_regions(call: Call) -> Result:
    """Maps (N, C, H, W) and boxes give (K, C, h, w): every channel by itself."""
    x = call["input"]
    call.relations.pin_all(call["rois"].factors, "boxes in an image")
    factors = []
    for f in mixing(call, x, [0, 2, 3]).factors:
        if f.axis == 1:
            factors.append(Factor(f.labels, 1))
        else:
            call.relations.pin(f.labels, "places in an image")
    regions = Value(call.shape, tuple(factors))
    return regions if len(call.shapes) == 1 else (regions, *(Value(shape) for shape in call.shapes[1:]))
