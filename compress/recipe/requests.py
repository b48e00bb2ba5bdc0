"""A recipe as what is asked of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress import units
from compress.errors import InputError
from compress.inputs import parse_type
from compress.request import BudgetTarget, DataSource, FinetuneRequest, ModelSource, PruneRequest, Settings
from compress.training import Training

_PLAIN = (
    *("method", "granularity", "prune_outputs", "prune_inputs", "allow_frozen", "keep_module", "calibrate", "refit"),
    *("round_to", "target", "allocation", "steps", "kept_out", "from_scratch"),
)


def settings_of(recipe: Mapping[str, Any]) -> Settings:
    """Seed, device and threads."""
    return Settings(recipe.get("seed", 0), recipe.get("device", "auto"), recipe.get("threads"))


def request_of(
    recipe: Mapping[str, Any], output: Path, *, trust_pickle: bool = False
) -> PruneRequest | FinetuneRequest:
    """What a recipe asks for: pruning with ``[prune]``, a training with ``[finetune]`` alone; with both, both.

    Args:
        recipe: As `read_recipe` gives it.
        output: The bundle to write.
        trust_pickle: Whether a pickled module may be loaded, which no recipe can say by itself.

    Raises:
        InputError: Something is missing, or contradicts something else.
    """
    if "prune" not in recipe and "finetune" not in recipe:
        raise InputError("the recipe does nothing: it has neither [prune] nor [finetune]", "add [prune] with a budget")
    model = _model(recipe, "model", trust_pickle)
    data = DataSource(**_tuples(recipe["data"])) if _has(recipe, "data", "spec") else None
    training = Training(**recipe["finetune"]) if "finetune" in recipe else None
    settings = settings_of(recipe)
    if "prune" in recipe:
        if "teacher" in recipe:
            raise InputError("[teacher] belongs to [finetune] alone", "with [prune] the original is the teacher")
        return _pruning(recipe["prune"], PruneRequest(model, output, data=data, training=training, settings=settings))
    if data is None or training is None:
        raise InputError("[finetune] trains on data, and there is none", '[data] with spec = "digits"')
    teacher = _model(recipe, "teacher", trust_pickle) if "teacher" in recipe else None
    return FinetuneRequest(model, data, output, training, teacher=teacher, settings=settings)


def _has(recipe: Mapping[str, Any], table: str, key: str) -> bool:
    if table in recipe and key not in recipe[table]:
        raise InputError(f"[{table}] has no {key}", f'{key} = "..."')
    return table in recipe


def _model(recipe: Mapping[str, Any], name: str, trust_pickle: bool) -> ModelSource:
    if not _has(recipe, name, "path"):
        raise InputError(f"the recipe has no [{name}]", f'[{name}] with path = "model.pt"')
    table = recipe[name]
    shapes = table.get("input_shapes")
    return ModelSource(
        Path(table["path"]),
        table.get("arch"),
        table.get("arch_args", {}),
        None if shapes is None else tuple(tuple(shape) for shape in shapes),
        trust_pickle,
        tuple(parse_type(text) for text in table.get("input_types", ())),
    )


def _pruning(prune: Mapping[str, Any], least: PruneRequest) -> PruneRequest:
    given = {name: prune[name] for name in _PLAIN if name in prune}
    given |= {name: tuple(prune[name]) for name in ("only", "exclude") if name in prune}
    options = {name: _text(name, value) for name, value in prune.get("options", {}).items()}
    ratio_of = tuple((glob, float(share)) for glob, share in prune.get("ratio_of", {}).items())
    return replace(least, budget=_budget(prune.get("budget")), options=options, ratio_of=ratio_of, **given)


def _budget(table: Mapping[str, Any] | None) -> BudgetTarget | None:
    if table is None:
        return None
    for key in ("kind", "value"):
        if key not in table:
            raise InputError(f"prune.budget has no {key}", 'budget = { kind = "macs", value = 0.5 }')
    kind, value = table["kind"], table["value"]
    if not isinstance(value, str):
        return BudgetTarget(kind, float(value))
    try:
        number = units.microseconds(value) if kind == "latency" else units.amount(value, of_bytes=kind == "bytes")
    except ValueError:
        example = {"latency": '"8ms"', "bytes": '"5MB"', "ratio": "0.3"}.get(kind, '"2M"')
        raise InputError(
            f"prune.budget.value = {value!r} is nothing for {kind}", f"value = {example}, or 0.5"
        ) from None
    return BudgetTarget(kind, number)


def _text(name: str, value: Any) -> str:
    """An option of a method as the registry takes it."""
    if not isinstance(value, (bool, int, float, str)):
        raise InputError(f"prune.options.{name} = {value!r} is neither a number, a text nor true or false")
    return str(value)


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(map(float, value)) if isinstance(value, list) else value for name, value in table.items()}
