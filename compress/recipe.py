"""The resolved recipe of a run: everything that was decided, as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import tomli_w

from compress.request import PruneRequest

SCHEMA = "compress.recipe/1"


def prune_recipe(request: PruneRequest, options: Mapping[str, Any], budget: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a prune run amounts to, defaults filled in, as plain values in a fixed order.

    Args:
        request: What was asked.
        options: All options of the method with their values.
        budget: ``{"kind": ..., "value": ...}`` as it was applied; None where the method decides.
    """
    model: dict[str, Any] = {"path": str(request.model.path)}
    if request.model.arch is not None:
        model["arch"] = request.model.arch
    if request.model.arch_args:
        model["arch_args"] = dict(request.model.arch_args)
    if request.model.input_shapes is not None:
        model["input_shapes"] = [list(s) for s in request.model.input_shapes]
    if request.model.input_types:
        model["input_types"] = [str(t) for t in request.model.input_types]
    prune: dict[str, Any] = {
        "method": request.method,
        "granularity": request.granularity,
        "only": list(request.only),
        "exclude": list(request.exclude),
        "prune_outputs": request.prune_outputs,
        "allow_frozen": request.allow_frozen,
        "keep_module": request.keep_module,
        "calibrate": request.calibrate,
    }
    if budget is not None:
        prune["budget"] = dict(budget)
    prune["options"] = {k: v for k, v in options.items() if v is not None}
    recipe: dict[str, Any] = {"schema": SCHEMA, "seed": request.settings.seed, "model": model, "prune": prune}
    if request.data is not None:
        data = asdict(request.data)
        recipe["data"] = {k: list(v) if isinstance(v, tuple) else v for k, v in data.items() if v is not None}
    return recipe


def to_toml(recipe: Mapping[str, Any]) -> str:
    """The recipe as a file."""
    return tomli_w.dumps(dict(recipe))
