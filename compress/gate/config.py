"""The settings of a gate: a TOML file of its own, or ``[tool.compress.check]`` in the nearest pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from compress.errors import InputError
from compress.gate.limits import KEYS, Limit, limit_of
from compress.registry import did_you_mean

AccuracyRule = Literal["interval", "point"]

_TABLE = "tool.compress.check"
_EXAMPLE = 'max_bytes = "5MB"'


@dataclass(frozen=True)
class Gate:
    """What a model has to meet.

    Attributes:
        limits: Those that are not off.
        baseline: The file that relative limits compare with, if any.
        accuracy_rule: When an accuracy breaks its limit: "interval" where the whole 95 % interval does, "point" where
            the accuracy itself does.
        source: Where this was read, for people.
    """

    limits: tuple[Limit, ...] = ()
    baseline: Path | None = None
    accuracy_rule: AccuracyRule = "interval"
    source: str = "the command line"


def read_gate(config: Path | None, given: Sequence[str] = (), folder: Path | None = None) -> Gate:
    """The gate of a file, or of the nearest pyproject.toml with a table for it, and of limits on the command line.

    Args:
        config: The file; a pyproject.toml is read at its table, any other at its top level.
        given: "KEY=VALUE", which count before the file's.
        folder: Where the search for a pyproject.toml begins and goes upwards; the current one by default.

    Raises:
        InputError: The file cannot be read, or something in it is wrong.
    """
    found = (config, _content(config)) if config is not None else _nearest(folder or Path.cwd())
    path, table = found if found is not None else (None, {})
    where = "--limit" if path is None else str(path)
    settings = dict(table)
    baseline = _text(settings.pop("baseline", None), "baseline", where)
    rule = settings.pop("accuracy_rule", "interval")
    if rule not in get_args(AccuracyRule):
        raise InputError(f"{where}: accuracy_rule {rule!r} is unknown", " or ".join(get_args(AccuracyRule)))
    _known(settings, where)
    limits = {name: limit_of(name, value, where) for name, value in settings.items()}
    limits |= {limit.name: limit for limit in map(_given, given)}
    return Gate(
        tuple(limits[name] for name in KEYS if name in limits and limits[name].level != "off"),
        None if baseline is None or path is None else path.parent / baseline,
        rule,
        "the command line" if path is None else str(path),
    )


def _given(text: str) -> Limit:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--limit: {text!r} is not KEY=VALUE", "--limit max_bytes=5MB")
    return limit_of(name.strip(), value.strip(), "--limit")


def _nearest(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    for place in (folder, *folder.absolute().parents):
        file = place / "pyproject.toml"
        if file.is_file():
            table = _table(_toml(file))
            if table is not None:
                return file, table
    return None


def _content(path: Path) -> Mapping[str, Any]:
    document = _toml(path)
    if path.name != "pyproject.toml":
        return document
    table = _table(document)
    if table is None:
        raise InputError(f"{path} has no table [{_TABLE}]", f"add it, with a limit such as {_EXAMPLE}")
    return table


def _table(document: Any) -> Mapping[str, Any] | None:
    for name in _TABLE.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "--config FILE.toml") from error
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}", f"a line of it looks like {_EXAMPLE}") from error


def _text(value: Any, name: str, where: str) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        raise InputError(f"{where}: {name} = {value!r} is not the name of a file", f'{name} = "{name}.json"')
    return value


def _known(settings: Mapping[str, Any], where: str) -> None:
    """Names that are neither limits nor settings are refused; a table that was forgotten is told apart."""
    for name in settings:
        if name not in KEYS:
            if name == "tool":
                raise InputError(f"{where}: [{_TABLE}] belongs into a pyproject.toml", "put its keys at the top level")
            near = did_you_mean(name, (*KEYS, "baseline", "accuracy_rule"))
            raise InputError(f"{where}: unknown key {name!r}", near or f"keys are {', '.join(KEYS)}")
