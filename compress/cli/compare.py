"""`compress compare`: reports side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from compress.cli import layout
from compress.cli.groups import Shared, grouped
from compress.errors import InputError
from compress.files import write_whole
from compress.report import compare, png, svg
from compress.report.markdown import text_table

_NUMBERS = range(3, len(compare.HEADER))


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("compare")(grouped(_compare))


def _compare(
    *,
    reports: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles, or their report.json files.")],
    format: Annotated[
        Literal["table", "json", "markdown", "csv"], typer.Option("--format", help="How the result is written.")
    ] = "table",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw two measures and their Pareto front: FILE.svg or FILE.png.",
            show_default=False,
        ),
    ] = None,
    x: Annotated[compare.Axis, typer.Option("--x", help="What is across in the picture.")] = "macs",
    y: Annotated[compare.Axis, typer.Option("--y", help="What is up.")] = "accuracy",
    shared: Shared,
) -> None:
    """Put reports side by side: size, accuracy with its interval, latency, and how much of the original that is.

    Ratios are to the original where all bundles were made of the same file, and else to the first of them.

    [bold]Examples[/bold]

      compress compare small smaller finetuned

      compress compare small smaller --format csv

      compress compare small smaller finetuned --plot pareto.svg --x latency
    """
    out = shared.output()
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise InputError(f"--plot {plot}: pictures are SVG or PNG", "--plot pareto.svg")
    found = compare.document(reports)
    drawn = None if plot is None else compare.figure(found, x, y)
    for warning in found["warnings"]:
        out.warn(warning)
    if plot is not None and drawn is not None:
        write_whole(plot, png(drawn) if plot.suffix == ".png" else svg(drawn).encode())
        out.step(f"Drew {plot}")
    out.result(found, _text(found, format), "\n".join(row["name"] for row in found["rows"]))


def _text(found: Mapping[str, Any], format: str) -> str:
    if format == "json":
        return json.dumps(found, indent=2, allow_nan=False)
    if format == "csv":
        return compare.table_csv(found).rstrip("\n")
    table = text_table if format == "markdown" else layout.table
    return table(compare.HEADER, compare.rows(found), right=_NUMBERS)
