"""`compress methods`: what is installed, and the options of one method."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from compress import registry
from compress.cli import layout
from compress.cli.groups import Shared, grouped
from compress.cli.output import Output
from compress.errors import InputError
from compress.registry import Description, Method

_EXAMPLES = {"float": "0.5", "int": "20"}  # values of options that have no default


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("methods")(grouped(_methods))


def complete(incomplete: str) -> list[str]:
    """Names of methods that begin with `incomplete`, for shell completion."""
    return sorted({method.name for method in registry.methods() if method.name.startswith(incomplete)})


def _methods(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="One method; all where left out.",
            show_default=False,
            autocompletion=complete,
        ),
    ] = None,
    shared: Shared,
) -> None:
    """List the methods that are installed, or show one of them with its options.

    [bold]Examples[/bold]

      compress methods

      compress methods tetris

      compress methods --json
    """
    output = shared.output()
    if name is not None:
        method = registry.find(name)
        description = registry.describe(method)
        output.result(
            {"schema": "compress.method/1", **_as_json(method, description)},
            _page(method, description),
            method.name,
        )
        return
    found = registry.methods()
    _list(output, found)
    clashes = registry.conflicts(found)
    if clashes:
        raise InputError("; ".join(clashes.values()), hint="uninstall one of them: a name belongs to one distribution")


def _list(output: Output, found: tuple[Method, ...]) -> None:
    glances = [(method, registry.glance(method)) for method in found]
    rows = [(method.name, method.kind, method.distribution, description.summary) for method, description in glances]
    output.result(
        {"schema": "compress.methods/1", "methods": [_as_json(*pair) for pair in glances]},
        layout.table(("method", "kind", "from", "what it does"), rows),
        "\n".join(method.name for method in found),
    )
    for method in found:
        if problem := registry.missing(method):
            output.warn(problem)


def _page(method: Method, description: Description) -> str:
    head = layout.pairs(
        [
            (method.name, description.summary),
            ("kind", method.kind),
            ("from", method.distribution),
            ("source", description.source),
        ]
    )
    parts = [head]
    if description.options:
        rows = [
            (option.flag, option.type, "required" if option.required else option.default, option.help)
            for option in description.options
        ]
        parts.append(layout.table(("option", "type", "default", ""), rows))
    parts.append(f"example\n  {_example(method, description)}")
    return "\n\n".join(parts)


def _example(method: Method, description: Description) -> str:
    words = ["compress", "prune", "model.pt", "--method", method.name]
    if method.kind == "retrain":
        words = ["compress", "retrain", "model.pt", "--data", "digits", "--mode", method.name]
    shown = [o for o in description.options if o.default not in ("", "none") or o.type in _EXAMPLES]
    for option in shown[:1]:
        words.append(option.flag)
        if not option.is_flag:
            words.append(_EXAMPLES[option.type] if option.default in ("", "none") else option.default)
    if method.kind == "criterion":
        words += ["--ratio", "0.3"]
    return " ".join(words)


def _as_json(method: Method, description: Description) -> dict[str, Any]:
    return {
        "name": method.name,
        "kind": method.kind,
        "distribution": method.distribution,
        "entry_point": method.entry_point,
        "summary": description.summary,
        "source": description.source,
        "options": [
            {
                "flag": option.flag,
                "type": option.type,
                "default": None if option.required else option.default,
                "required": option.required,
                "help": option.help,
            }
            for option in description.options
        ],
    }
