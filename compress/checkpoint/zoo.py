"""Architectures by name from torchvision and timm, and the search for the torchvision model of a state dict.

Models whose weights have the names of the state dict are looked up in a table and built hollow (no weights, no
initialisation), which takes some tenths of a second. Where there is none, the nearest of the family is built, whose
tell-tale name is in the state dict. Nothing is ever downloaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import isqrt
from typing import Any

import torch
from torch import nn

from compress.checkpoint import known
from compress.checkpoint.fit import Fit, compare, hollow_parameters
from compress.checkpoint.userfile import call_user, near_or_some
from compress.errors import InputError
from compress.wording import plural

# The start of a builder's name, and a weight that every model of that family has; the first match counts.
_FAMILIES = (
    ("lraspp", "backbone.0.0.weight"), ("deeplabv3_mobilenet", "backbone.0.0.weight"),
    ("deeplabv3", "backbone.layer1.0.conv1.weight"), ("fcn", "backbone.layer1.0.conv1.weight"),
    ("resnet", "layer1.0.conv1.weight"), ("resnext", "layer1.0.conv1.weight"),
    ("wide_resnet", "layer1.0.conv1.weight"), ("alexnet", "features.10.weight"),
    ("vgg", "classifier.3.weight"), ("convnext", "features.1.0.layer_scale"),
    ("swin", "features.1.0.norm1.weight"), ("densenet", "features.conv0.weight"),
    ("efficientnet", "features.1.0.block.0.0.weight"),
    ("mobilenet_v2", "features.1.conv.0.0.weight"), ("mobilenet_v3", "features.1.block.0.0.weight"),
    ("googlenet", "conv1.conv.weight"), ("inception", "Conv2d_1a_3x3.conv.weight"),
    ("maxvit", "stem.0.0.weight"), ("mnasnet", "layers.0.weight"), ("regnet", "stem.0.weight"),
    ("shufflenet", "conv1.0.weight"), ("squeezenet", "features.3.squeeze.weight"), ("vit", "class_token"),
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A torchvision builder's name and how a state dict fits its model."""

    name: str
    fit: Fit


def candidates(state: dict[str, torch.Tensor]) -> list[Candidate]:
    """The torchvision models whose weights have the names of `state`, with their fits; their shapes may differ."""
    found = [(each.name, each.args) for each in known.matching(state)]
    newer = set(searched()) - {each.name for each in known.table()}
    found += [(name, {}) for name in sorted(newer) if _may_fit(name, state)]
    return [Candidate(name, fit_named("torchvision", name, args, state)) for name, args in found]


def nearest(state: dict[str, torch.Tensor]) -> list[Candidate]:
    """Of the families that may have made `state` the three models nearest in number of weights, with their fits."""
    count, _ = known.hash_of(state)
    family = [each for each in known.table() if _may_fit(each.name, state)]
    near = sorted(family, key=lambda each: abs(each.count - count))[:3]
    return [Candidate(each.name, fit_named("torchvision", each.name, each.args, state)) for each in near]


def fit_named(library: str, name: str, args: dict[str, Any], state: dict[str, torch.Tensor]) -> Fit:
    """How `state` fits a named model; options that the state dict shows (classes, auxiliary heads) are set.

    Raises:
        InputError: The library is not installed, it has no such model, or building it fails.
    """
    fit = compare(build(library, name, args), state)
    for key, value in _shown_by(fit).items():
        if key in args:
            continue
        args = {**args, key: value}
        fit = compare(build(library, name, args), state)
        fit = replace(fit, notes=(f"{key} {value}, from the weights", *fit.notes))
    if "num_classes" not in args and (classes := _classes_in(fit, _usual_classes(library, name))):
        fit = compare(build(library, name, {**args, "num_classes": classes}), state)
        fit = replace(fit, notes=(f"{plural(classes, 'class', 'classes')}, from the weights", *fit.notes))
    return fit


@cache
def torchvision_names() -> frozenset[str]:
    """Every model of the installed torchvision."""
    from torchvision import models

    return frozenset(models.list_models())


@cache
def timm_names() -> frozenset[str]:
    """Every model of the installed timm; empty without it."""
    try:
        import timm
    except ImportError:
        return frozenset()
    return frozenset(timm.list_models())


@cache
def searched() -> tuple[str, ...]:
    """The classifiers of images and videos, segmentation models and detectors of the installed torchvision."""
    from torchvision import models

    kinds = (models, models.segmentation, models.detection, models.video)
    return tuple(name for kind in kinds for name in models.list_models(module=kind))


def usual_shape(name: str, module: nn.Module) -> tuple[int, ...] | None:
    """The input that a torchvision model usually takes, without the batch; None for detectors, which take lists."""
    from torchvision import models

    if name in models.list_models(module=models.detection):
        return None
    if name in models.list_models(module=models.video):
        side = 112 if name.endswith("_18") else 224
        return (3, 16, side, side)
    side = 299 if name == "inception_v3" else 224
    side = int(getattr(module, "image_size", side))  # of a vision transformer
    return (3, side, side)


def _may_fit(name: str, state: dict[str, torch.Tensor]) -> bool:
    return next((mark in state for start, mark in _FAMILIES if name.startswith(start)), False)


def _shown_by(fit: Fit) -> dict[str, Any]:
    """Options that the names and shapes show."""
    if fit.unexpected and all(key.startswith("aux_classifier.") for key in fit.unexpected):
        return {"aux_loss": True}
    if fit.missing and all(key.startswith(("aux1.", "aux2.", "AuxLogits.")) for key in fit.missing):
        return {"aux_logits": False}
    positions = next((file for name, _, file in fit.mismatched if name == "encoder.pos_embedding"), ())
    if len(positions) == 3 and isqrt(positions[1] - 1) ** 2 == positions[1] - 1:
        return {"image_size": isqrt(positions[1] - 1) * int(getattr(fit.module, "patch_size", 0))}
    return {}


def _usual_classes(library: str, name: str) -> int | None:
    """How many classes a model of torchvision is built for where nobody says it."""
    from torchvision import models

    if library != "torchvision":
        return None
    if name.startswith("keypointrcnn"):
        return 2
    counts = ((models.detection, 91), (models.segmentation, 21), (models.video, 400))
    return next((count for kind, count in counts if name in models.list_models(module=kind)), 1000)


def _classes_in(fit: Fit, usual: int | None) -> int | None:
    """The class count of the file when a changed count is all that is wrong, or may be.

    The outputs that differ are multiples of the count: detectors have several per class.
    """
    same_rest = all(model[1:] == file[1:] and model and file for _, model, file in fit.mismatched)
    if not fit.mismatched or not same_rest or fit.missing or fit.unexpected:
        return None
    usual = fit.mismatched[0][1][0] if usual is None else usual
    counts = {(file[0] * usual, model[0]) for _, model, file in fit.mismatched}
    found = {product // outputs if product % outputs == 0 else 0 for product, outputs in counts}
    return found.pop() or None if len(found) == 1 else None


def build(library: str, name: str, args: dict[str, Any]) -> nn.Module:
    """A model without values in its parameters, where its code can be run so.

    Raises:
        InputError: As `fit_named`.
    """
    make = _torchvision_model if library == "torchvision" else _timm_model
    try:
        with _quiet(), hollow_parameters():
            module = make(name, args)
    except InputError:  # some compute with their parameters while they are made
        with _quiet():
            return make(name, args)
    names = [each for each, _ in module.named_parameters(remove_duplicate=False)]
    placed = not any(buffer.is_meta for buffer in module.buffers())
    if placed and len(names) == len(list(module.parameters())):
        return module
    # Tied weights would be untied by assigning, and buffers that were made where a parameter lies hold nothing
    with _quiet():
        return make(name, args)


def _torchvision_model(name: str, args: dict[str, Any]) -> nn.Module:
    from torchvision import models

    if name not in torchvision_names():
        raise InputError(f"torchvision has no model {name!r}", near_or_some(name, torchvision_names()))
    known = inspect.signature(models.get_model_builder(name)).parameters
    fixed = {key: None for key in ("weights", "weights_backbone") if key in known}
    if name in ("googlenet", "inception_v3"):
        fixed["init_weights"] = False  # type: ignore[assignment]
    module: nn.Module = call_user(models.get_model, name, what=f"torchvision:{name}", **{**args, **fixed})
    return module


def _timm_model(name: str, args: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"timm:{name} needs timm, which is not installed", "pip install timm") from error
    if name.partition(".")[0] not in timm_names():
        raise InputError(f"timm has no model {name!r}", near_or_some(name, timm_names()))
    module: nn.Module = call_user(timm.create_model, name, what=f"timm:{name}", **{**args, "pretrained": False})
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings about initialisation, and the caller's random numbers untouched."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield
