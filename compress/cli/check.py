"""`compress check`: the gate of a pipeline."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.groups import LAST, Data, LastBundle, Shared, flag, grouped
from compress.cli.output import Output
from compress.errors import GateFailed, InputError
from compress.files import write_whole
from compress.gate import CheckRequest, Format, Gate, read_gate, texts
from compress.gate.request import Where
from compress.wording import plural

if TYPE_CHECKING:
    from compress.gate import Checked

_LIMITS = "Limits"
_SUMMARY = "GITHUB_STEP_SUMMARY"  # where GitHub says a job's summary may be appended to


@dataclass(frozen=True)
class Subject(LastBundle):
    """As `LastBundle`, and a report will do."""

    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A bundle, a checkpoint, or a report.json, which is not measured.")
    ] = LAST


@dataclass(frozen=True)
class Limits:
    """What has to hold."""

    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Where the limits are. Where left out: tool.compress.check in the nearest pyproject.toml.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A limit, such as max_bytes=5MB; counts before the config's. Repeatable.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="What relative limits compare with, such as max_bytes_growth.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None
    update_baseline: Annotated[
        bool,
        flag(
            "--update-baseline",
            help="Write the baseline anew; what compares with it is not judged then.",
            rich_help_panel=_LIMITS,
        ),
    ] = False

    def gate(self) -> Gate:
        """The limits of the config, under those that were typed. Raises InputError."""
        gate = read_gate(self.config, self.limit or ())
        return replace(gate, baseline=self.baseline or gate.baseline)


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        "check",
        epilog="Exit code 0: all limits met, 1: one is not, 2: the config, a file or the data is wrong. Limits and "
        "their units: docs/ci.md.",
    )(grouped(_check))


def _check(
    *,
    model: Subject,
    limits: Limits,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The original. Where left out: the file that the bundle names, if it is there.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        Where, typer.Option(help="What latency is timed in; auto: ONNX Runtime where it can run the model.")
    ] = "auto",
    runs: Annotated[int, typer.Option(help="Timed runs, at least.")] = CheckRequest.runs,
    format: Annotated[Format, typer.Option("--format", help="How the result is written.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the result there, in --format, and print the table.",
            show_default=False,
        ),
    ] = None,
    data: Data,
    shared: Shared,
) -> None:
    """Check a bundle, a model or a report.json against limits: its size, its accuracy, its speed.

    Sizes are counted and latency is timed now; accuracy is measured with --data, and the report's without.

    [bold]Examples[/bold]

      compress check --limit max_bytes=100kB

      compress check compressed --config gate.toml --data digits --format junit -o gate.xml

      compress check compressed --baseline baseline.json --update-baseline

      compress check compressed --baseline baseline.json --limit "max_bytes_growth=2 %" --limit "max_accuracy_drop=1 %"

      compress check compressed/report.json --limit min_accuracy=0.97
    """
    out = shared.output()
    if model.model == LAST and not LAST.exists():
        raise InputError(f"{LAST} does not exist", "compress prune writes it; or name a model: compress check MODEL")
    gate = limits.gate()
    request = CheckRequest(
        model=model.source(),
        gate=gate,
        against=model.source(against) if against else None,
        data=data.source(),
        update=limits.update_baseline,
        runtime=runtime,
        runs=runs,
        settings=shared.settings(),
    )
    from compress import pipeline

    checked = pipeline.check(request, out)
    _show(checked, "json" if out.json else format, output, out)
    if checked.failed:
        count = plural(len(checked.judged), "limit")
        raise GateFailed(f"{len(checked.failed)} of {count} not met: {', '.join(checked.failed)}")


def _show(checked: Checked, format: Format, file: Path | None, out: Output) -> None:
    """The result on stdout, in a file, and in the summary of a GitHub job."""
    text = {"table": _page, "markdown": texts.markdown, "junit": texts.junit, "json": _json}[format](checked)
    if file is not None:
        write_whole(file, (text.rstrip("\n") + "\n").encode())
    shown = _page(checked) if file is not None else text.rstrip("\n")
    out.result(checked.to_json(), shown, "failed" if checked.failed else "passed")
    if summary := os.environ.get(_SUMMARY):
        try:
            with open(summary, "a", encoding="utf-8") as target:
                target.write(texts.markdown(checked) + "\n")
        except OSError as error:
            out.warn(f"{_SUMMARY} {summary} cannot be written: {error.strerror}")


def _json(checked: Checked) -> str:
    return json.dumps(checked.to_json(), indent=2, allow_nan=False)


def _page(checked: Checked) -> str:
    told = [row[:-1] for row in texts.rows(checked)]
    notes = [f"{row[1]}: {row[-1]}" for row in texts.rows(checked) if row[-1]]
    notes += [f"original: {checked.original}"] if checked.original else []
    parts = [layout.table(texts.HEADER[:-1], told, right=(2, 3)) if told else "", "\n".join(notes)]
    return "\n\n".join(part for part in (*parts, texts.sentence(checked)) if part)
