"""Every builder that ``torchvision.models.list_models()`` knows, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coverage_models.case import Case, Inputs, enliven, images, randomise

DETECTORS = ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet", "ssd", "fcos")
VIDEO = ("mc3", "r2plus1d", "r3d", "s3d", "swin3d", "mvit")
SEGMENTATION = ("deeplabv3", "fcn", "lraspp")
# Smallest square images that every stage can still process, where that is not 64.
SIZES = {"inception_v3": 96, "quantized_inception_v3": 96, "vit_h_14": 56, "maxvit_t": 224}


def cases() -> list[Case]:
    import torchvision

    return [_case(name) for name in torchvision.models.list_models()]


def _case(name: str) -> Case:
    detector = name.startswith(DETECTORS)
    family = name.split("_")[0] if not name.startswith("quantized") else "quantized"
    return Case("torchvision", name, family, lambda: _build(name), lambda: _inputs(name), detector)


def _build(name: str) -> nn.Module:
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    options: dict[str, Any] = {}
    if name.startswith((*DETECTORS, *SEGMENTATION)):
        options["weights_backbone"] = None
    if name.startswith("quantized"):
        options["quantize"] = False
    if name.endswith(("googlenet", "inception_v3")):
        options["init_weights"] = False  # slow, and drawn anew anyway
    if name.startswith("vit"):
        options["image_size"] = _size(name)
    if name.startswith(DETECTORS[:4]) or name.startswith("fcos"):
        options |= {"min_size": 96, "max_size": 160}
    module: nn.Module = builder(weights=None, **options)
    randomise(module)
    if name.startswith("ssd"):  # of boxes with equal scores, which the defaults give, any may come first
        enliven(module)
    return module


def _size(name: str) -> int:
    return SIZES.get(name, 64)


def _inputs(name: str) -> Inputs:
    if name.startswith("raft"):
        return (torch.rand(1, 3, 128, 128) * 2 - 1, torch.rand(1, 3, 128, 128) * 2 - 1), {}
    if name.startswith(VIDEO):
        frames, size = _clip(name)
        return (torch.randn(2, 3, frames, size, size),), {}
    if name.startswith(DETECTORS):
        return ([torch.rand(3, 96, 128), torch.rand(3, 96, 96)],), {}
    return images(_size(name))()


def _clip(name: str) -> tuple[int, int]:
    """Frames and side of the smallest clip."""
    return (16, 224) if name.startswith(("s3d", "mvit")) else (4, 64)
