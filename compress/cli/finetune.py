"""`compress finetune`: training a model again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.bundle import Bundle, Force
from compress.cli.groups import Data, Model, Shared, grouped
from compress.cli.prune import next_commands
from compress.cli.training import Basics, Details, running, training
from compress.errors import InputError
from compress.request import DataSource, FinetuneRequest, command_line

if TYPE_CHECKING:
    from compress.result import Finetuned

OUTPUT = Path("finetuned")


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        "finetune",
        epilog="Several GPUs or machines: torchrun --nproc-per-node 4 -m compress finetune ... (or accelerate launch).",
    )(grouped(_finetune))


def _finetune(
    *,
    model: Model,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The original that MODEL was made of. Where left out: the file that a bundle names, if it is there.",
            show_default=False,
        ),
    ] = None,
    output: Bundle = OUTPUT,
    force: Force = False,
    basics: Basics,
    details: Details,
    data: Data,
    shared: Shared,
) -> None:
    """Train a model again, with the original as its teacher, and write the best epoch as a bundle with a report.

    The best epoch is chosen on a part of the training samples; the test samples are for the report alone.

    [bold]Examples[/bold]

      compress finetune compressed --data digits --epochs 20

      compress finetune compressed --data digits --teacher sample_models/digits_mlp.pt -o taught

      compress finetune compressed --data digits --epochs 20 --resume
    """
    out = shared.output()
    source = data.source()
    if source is None:
        raise InputError("finetune needs --data", hint=f"compress finetune {model.model} --data digits")
    request = FinetuneRequest(
        model=model.source(),
        data=source,
        output=output,
        training=training(basics, details),
        running=running(basics, details),
        teacher=model.source(teacher) if teacher else None,
        force=force,
        settings=shared.settings(),
        command=command_line(),
    )
    from compress import pipeline

    result = pipeline.finetune_model(request, out)
    out.result(result.to_json(), page(result, source), str(result.bundle))


def page(result: Finetuned, data: DataSource) -> str:
    """Before and after, which epoch it is, and what to type next."""
    from compress.report import summary_rows

    rows = [row for row in summary_rows(result.report) if row[-1] != "same"]
    parts = [
        layout.table(("", "before", "after", "change"), rows, right=(1, 2, 3)),
        f"{result.bundle} holds the weights of epoch {result.best}"
        + (f": {result.stopped}" if result.stopped else f" of {len(result.report['history']) - 1}"),
        "Next:\n" + "\n".join(f"  {command}" for command in next_commands(result.bundle, data)),
    ]
    return "\n\n".join(parts)
