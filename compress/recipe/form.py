"""What a recipe may hold: every key with its type, checked before anything is done."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from compress.errors import InputError
from compress.recipe.resolved import SCHEMA
from compress.registry import did_you_mean
from compress.request import Allocation, BudgetKind, Granularity, Refit, Target
from compress.training import Training

Form = Mapping[str, Any]  # by key a type, or another form for a table

_MODEL: Form = {
    "path": str,
    "arch": str,
    "arch_args": dict,
    "input_shapes": list[list[int]],
    "input_types": list[str],
}
_PRUNE: Form = {
    "method": str,
    "granularity": Granularity,
    "only": list[str],
    "exclude": list[str],
    "prune_outputs": bool,
    "prune_inputs": bool,
    "allow_frozen": bool,
    "keep_module": bool,
    "calibrate": bool,
    "refit": Refit,
    "round_to": int | Literal["auto"],
    "target": Target,
    "allocation": Allocation,
    "steps": int,
    "budget": {"kind": BudgetKind, "value": float | str},
    "kept_out": float,
    "from_scratch": bool,
    "ratio_of": dict[str, float],
    "options": dict,
}
_FORM: Form = {
    "schema": Literal["compress.recipe/1"],
    "seed": int,
    "device": str,
    "threads": int,
    "model": _MODEL,
    "prune": _PRUNE,
    "data": {"spec": str, "mean": list[float], "std": list[float]},
    "finetune": get_type_hints(Training),
    "teacher": {**_MODEL, "sha256": str},
}


def read_recipe(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe from its file, with the changes of ``--set KEY=VALUE``.

    Raises:
        InputError: It cannot be read, or a key or value in it or in the changes is wrong.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory", f"of a bundle the recipe: {path / 'recipe.toml'}")
    try:
        recipe = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", "compress init writes a recipe to start from"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}", "compress init writes a recipe to start from") from error
    if "schema" not in recipe:
        raise InputError(f"{path} is no recipe: it does not say its schema", f'schema = "{SCHEMA}" at its beginning')
    if recipe["schema"] != SCHEMA:
        raise InputError(
            f"{path} has the schema {recipe['schema']!r}, this version reads {SCHEMA!r}",
            "update the package to read it",
        )
    _check(recipe, _FORM, str(path))
    return with_settings(recipe, changes)


def with_settings(recipe: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A recipe with changes such as "prune.budget.value=0.5", whose values are TOML, or texts without quotes.

    Raises:
        InputError: A key or value is wrong.
    """
    changed = dict(recipe)
    for text in changes:
        changed = _merged(changed, _change(text))
    _check(changed, _FORM, "--set" if changes else "the recipe")
    return changed


def _change(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if equals and key.strip():
        for written in (value, json.dumps(value.strip())):
            try:
                return tomllib.loads(f"{key} = {written}")
            except ValueError:
                continue
    raise InputError(f"--set: {text!r} is not KEY=VALUE", "--set prune.budget.value=0.5")


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(old[key], value) if _tables(old.get(key), value) else value for key, value in new.items()}
    return {**old, **both}


def _tables(first: Any, second: Any) -> bool:
    return isinstance(first, Mapping) and isinstance(second, Mapping)


def _check(table: Mapping[str, Any], form: Form, where: str, prefix: str = "") -> None:
    for key, value in table.items():
        name = prefix + key
        if key not in form:
            near = did_you_mean(key, form)
            raise InputError(f"{where}: unknown key {name}", near or f"keys are {', '.join(prefix + k for k in form)}")
        wanted = form[key]
        if isinstance(wanted, Mapping):
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: {name} is not a table", f"[{name}] with {', '.join(wanted)}")
            _check(value, wanted, where, f"{name}.")
        elif not _fits(value, wanted):
            near = did_you_mean(value, _choices(wanted)) if isinstance(value, str) else ""
            raise InputError(f"{where}: {name} = {_shown(value)} is not {_said(wanted)}", near)


def _choices(wanted: Any) -> tuple[str, ...]:
    origin: Any = get_origin(wanted)
    return get_args(wanted) if origin is Literal else ()


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value from TOML is of a type; whole numbers are numbers, too."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if origin is not None:  # a union
        return any(_fits(value, each) for each in inner)
    if wanted in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if wanted is float else wanted)


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


def _said(wanted: Any) -> str:
    origin: Any = get_origin(wanted)
    inner = get_args(wanted)
    if origin is Literal:
        return " or ".join(inner)
    if origin is list:
        return f"a list, each {_said(inner[0])}"
    if origin is dict:
        return f"a table, each {_said(inner[1])}"
    if origin is not None:
        return " or ".join(_said(each) for each in inner if each in _NAMES or get_origin(each))
    return _NAMES[wanted]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
