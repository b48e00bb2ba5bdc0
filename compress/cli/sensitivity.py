"""`compress sensitivity`: what the accuracy bears, one family of units at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout, parse
from compress.cli.bundle import calibration
from compress.cli.groups import Data, Model, Shared, flag, grouped
from compress.cli.methods import complete
from compress.cli.scope import Scope
from compress.errors import InputError
from compress.request import command_line
from compress.searching import SensitivityRequest

if TYPE_CHECKING:
    from compress.result import Sensitivities

OUTPUT = Path("sensitivity")
_RATIOS = ",".join(f"{ratio:g}" for ratio in SensitivityRequest.ratios)


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("sensitivity")(grouped(_sensitivity))


def _sensitivity(
    *,
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m", metavar="NAME", help="Chooses the units: one that scores them.", autocompletion=complete
        ),
    ] = SensitivityRequest.method,
    ratios: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Shares of the units of a family to remove.")
    ] = _RATIOS,
    samples: Annotated[int, typer.Option(help="Validation samples to judge on, at most.")] = SensitivityRequest.samples,
    calibrate: Annotated[
        bool,
        calibration(
            "Refit the layers after every cut, as prune does: closer to what prune gives, but many times slower, "
            "and families differ less.",
        ),
    ] = SensitivityRequest.calibrate,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the table and the picture go.")
    ] = OUTPUT,
    force: Annotated[bool, flag("--force", help="Write into DIR even where it holds something else.")] = False,
    scope: Scope,
    data: Data,
    shared: Shared,
) -> None:
    """Cut one family of units at a time, everything else whole, and tell what the accuracy bears.

    It is judged on the part of the training samples that fine-tuning keeps out, too, and never on test samples.

    [bold]Examples[/bold]

      compress sensitivity sample_models/digits_mlp.pt --data digits

      compress sensitivity sample_models/digits_vit.pt2 --data digits --ratios .25,.5,.75 --only 'blocks.*.mlp.*' -o vit

      compress sensitivity sample_models/digits_mlp.pt --data digits --calibrate -o refitted
    """
    out = shared.output()
    source = data.source()
    if source is None:
        raise InputError("sensitivity needs --data", hint=f"compress sensitivity {model.model} --data digits")
    request = SensitivityRequest(
        model=model.source(),
        data=source,
        output=output,
        method=method,
        ratios=parse.numbers(ratios, "--ratios") or (),
        samples=samples,
        calibrate=calibrate,
        scope=scope.source(),
        force=force,
        settings=shared.settings(),
        command=command_line(),
    )
    from compress import pipeline

    result = pipeline.sensitivity(request, out)
    out.result(result.to_json(), _page(result), str(result.folder))


def _page(result: Sensitivities) -> str:
    from compress.report import sensitivity

    document = result.to_json()
    header, rows = sensitivity.rows(document)
    names = ("sensitivity.md", "sensitivity.svg", "sensitivity.json")
    written = "\n".join(f"  {result.folder / name}" for name in names)
    return "\n\n".join(
        (
            sensitivity.sentence(document),
            layout.table(header, rows, right=range(1, len(header))),
            f"Written:\n{written}",
        )
    )
