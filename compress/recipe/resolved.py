"""The resolved recipe of a run: everything that was decided, as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import tomli_w

from compress.request import DataSource, FinetuneRequest, ModelSource, PruneRequest, Settings

SCHEMA = "compress.recipe/1"


def prune_recipe(
    request: PruneRequest, options: Mapping[str, Any], budget: Mapping[str, Any] | None, round_to: int = 1
) -> dict[str, Any]:
    """What a prune run amounts to, defaults filled in, as plain values in a fixed order.

    Args:
        request: What was asked.
        options: All options of the method with their values.
        budget: ``{"kind": ..., "value": ...}`` as it was applied; None where the method decides.
        round_to: What widths were rounded to.
    """
    prune: dict[str, Any] = {
        "method": request.method,
        "granularity": request.granularity,
        "only": list(request.only),
        "exclude": list(request.exclude),
        "prune_outputs": request.prune_outputs,
        "prune_inputs": request.prune_inputs,
        "allow_frozen": request.allow_frozen,
        "keep_module": request.keep_module,
        "calibrate": request.calibrate,
        "refit": request.refit,
    }
    prune |= {"round_to": round_to, "target": request.target}
    if budget is not None:
        prune |= {"allocation": request.allocation, "steps": request.steps, "budget": dict(budget)}
    if request.from_scratch:
        prune["from_scratch"] = True
    if request.kept_out:
        prune["kept_out"] = request.kept_out
    if request.ratio_of:
        prune["ratio_of"] = dict(request.ratio_of)
    prune["options"] = {k: v for k, v in options.items() if v is not None}
    recipe = {**_settings(request.settings), "model": _model(request.model), "prune": prune}
    if request.data is not None:
        recipe["data"] = _data(request.data)
    if request.training is not None:
        recipe["finetune"] = request.training.resolved()
    return recipe


def finetune_recipe(request: FinetuneRequest, teacher: tuple[ModelSource, str] | None) -> dict[str, Any]:
    """What a finetune run amounts to, defaults filled in, as plain values in a fixed order.

    Args:
        request: What was asked.
        teacher: The original and its sha256, if it was at hand.
    """
    recipe = {**_settings(request.settings), "model": _model(request.model)}
    recipe |= {"data": _data(request.data), "finetune": request.training.resolved()}
    if teacher is not None:
        source, digest = teacher
        recipe["teacher"] = {**_model(source), "sha256": digest}
    return recipe


def _settings(settings: Settings) -> dict[str, Any]:
    """What holds for the whole run; where and on how many threads only if somebody said so, as sums depend on both."""
    found: dict[str, Any] = {"schema": SCHEMA, "seed": settings.seed}
    if settings.device != "auto":
        found["device"] = settings.device
    if settings.threads is not None:
        found["threads"] = settings.threads
    return found


def _model(source: ModelSource) -> dict[str, Any]:
    model: dict[str, Any] = {"path": str(source.path)}
    if source.arch is not None:
        model["arch"] = source.arch
    if source.arch_args:
        model["arch_args"] = dict(source.arch_args)
    if source.input_shapes is not None:
        model["input_shapes"] = [list(s) for s in source.input_shapes]
    if source.input_types:
        model["input_types"] = [str(t) for t in source.input_types]
    return model


def _data(source: DataSource) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(source).items() if v is not None}


def to_toml(recipe: Mapping[str, Any]) -> str:
    """The recipe as a file."""
    return tomli_w.dumps(dict(recipe))
