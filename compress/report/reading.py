"""A report.json, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.report.schema import SCHEMA


def read_report(path: str | Path) -> dict[str, Any]:
    """The report in a bundle directory or a report.json.

    Raises:
        InputError: There is none, it is damaged, or of another version.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", "give a bundle or its report.json") from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}", "run the command that wrote it again") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{file} has the schema {schema!r}, this version reads {SCHEMA!r}",
            "give the report.json of a bundle" if schema is None else "update the package to read it",
        )
    lacks = _lacking(found)
    if lacks:
        raise InputError(f"{file} is damaged: it lacks {lacks}", "run the command that wrote it again")
    return dict(found)


_MEASURED = ("params", "macs", "files", "accuracy", "latency")
# What every version has written, and what reads reports relies on
_PARTS = {"input": ("path", "sha256"), "method": ("name",), "before": _MEASURED, "after": _MEASURED}


def _lacking(found: Mapping[str, Any]) -> str:
    for name in (*_PARTS, "data", "speedup"):
        if name not in found:
            return name
    for name, keys in _PARTS.items():
        part = found[name]
        for key in keys:
            if not isinstance(part, Mapping) or key not in part:
                return f"{name}.{key}"
    return ""
