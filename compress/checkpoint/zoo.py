"""Architectures by name from torchvision and timm, and the search for the torchvision model of a state dict.

Candidates are built hollow (no weights, no initialisation), only those of a family whose tell-tale name is in
the state dict; a family takes between 0.05 and 2.5 s on one core. Nothing is ever downloaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from compress.checkpoint.fit import Fit, compare, hollow_parameters
from compress.checkpoint.userfile import call_user, near_or_some
from compress.errors import InputError

# The start of a builder's name, and a weight that every model of that family has. The first match counts;
# a builder without a row is always tried.
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
    """The torchvision classifiers and segmentation models that may have made `state`, with their fits."""
    return [Candidate(name, fit_named("torchvision", name, {}, state)) for name in _search_names(state)]


def fit_named(library: str, name: str, args: dict[str, Any], state: dict[str, torch.Tensor]) -> Fit:
    """How `state` fits a named model; options that the state dict shows (classes, auxiliary heads) are set.

    Raises:
        InputError: The library is not installed, it has no such model, or building it fails.
    """
    fit = compare(_build(library, name, args), state)
    for key, value in _shown_by(fit).items():
        if key in args:
            continue
        args = {**args, key: value}
        fit = compare(_build(library, name, args), state)
        fit = replace(fit, notes=(f"{key} {value}, from the weights", *fit.notes))
    if "num_classes" not in args and (classes := _classes_in(fit)):
        fit = compare(_build(library, name, {**args, "num_classes": classes}), state)
        fit = replace(fit, notes=(f"{classes} classes, from the weights", *fit.notes))
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


def _search_names(state: dict[str, torch.Tensor]) -> list[str]:
    from torchvision import models

    names = models.list_models(module=models) + models.list_models(module=models.segmentation)

    def may_fit(name: str) -> bool:
        return next((mark in state for start, mark in _FAMILIES if name.startswith(start)), True)

    return [name for name in names if may_fit(name)]


def _shown_by(fit: Fit) -> dict[str, bool]:
    if fit.unexpected and all(key.startswith("aux_classifier.") for key in fit.unexpected):
        return {"aux_loss": True}
    if fit.missing and all(key.startswith(("aux1.", "aux2.", "AuxLogits.")) for key in fit.missing):
        return {"aux_logits": False}
    return {}


def _classes_in(fit: Fit) -> int | None:
    """The class count of the file when a changed count is all that is wrong, or may be."""
    sizes = {(model[:1], file[:1]) for _, model, file in fit.mismatched}
    same_rest = all(model[1:] == file[1:] for _, model, file in fit.mismatched)
    if len(sizes) != 1 or not same_rest or fit.missing or fit.unexpected:
        return None
    ((_, file),) = sizes
    return file[0] if file else None


def _build(library: str, name: str, args: dict[str, Any]) -> nn.Module:
    make = _torchvision_model if library == "torchvision" else _timm_model
    with _quiet(), hollow_parameters():
        module = make(name, args)
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
