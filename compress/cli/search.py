"""`compress search`: the smallest model that holds an accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.bundle import Bundle, Force
from compress.cli.groups import LAST, Data, Model, Shared, grouped
from compress.cli.prune import next_commands
from compress.cli.scope import Scope
from compress.cli.training import AfterPruning, running
from compress.errors import InputError
from compress.request import DataSource, command_line
from compress.searching import Floor, Objective, SearchRequest

if TYPE_CHECKING:
    from compress.result import Searched

_FLOOR = "Floor (one of these)"
_STUDY = "Study"


@dataclass(frozen=True)
class Floors:
    """The accuracy that has to hold."""

    min_accuracy: Annotated[
        float | None,
        typer.Option(help="The lowest accuracy, as in 0.98.", show_default=False, rich_help_panel=_FLOOR),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of accuracy that may be lost, as in 0.5: from 98 % to 97.5 %.",
            show_default=False,
            rich_help_panel=_FLOOR,
        ),
    ] = None

    def source(self) -> Floor:
        """The one floor that was given. Raises InputError for none, two, or nonsense."""
        least, drop = self.min_accuracy, self.max_drop
        if (least is None) == (drop is None):
            wrong = "the search needs a floor" if least is None else "--min-accuracy and --max-drop are both a floor"
            raise InputError(wrong, hint="--min-accuracy 0.98, or --max-drop 0.5")
        return Floor("min-accuracy", least) if least is not None else Floor("max-drop", drop or 0.0)


@dataclass(frozen=True)
class Study:
    """How long is searched, and where candidates are written down."""

    trials: Annotated[int, typer.Option(help="Candidates of the study in all.", rich_help_panel=_STUDY)] = (
        SearchRequest.trials
    )
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Begin no candidate after so long.", show_default=False, rich_help_panel=_STUDY
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where candidates are written down: sqlite:///FILE or another database. Where left out: "
            "DIR.search/study.db.",
            show_default=False,
            rich_help_panel=_STUDY,
        ),
    ] = None
    study: Annotated[str, typer.Option(metavar="NAME", help="Its name in the storage.", rich_help_panel=_STUDY)] = (
        SearchRequest.study
    )


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        "search",
        epilog="The same command again goes on with its study until it has --trials in all; several processes or "
        "machines share one by --storage.",
    )(grouped(_search))


def _search(
    *,
    model: Model,
    floor: Floors,
    objective: Annotated[Objective, typer.Option(help="What is to be small.")] = SearchRequest.objective,
    methods: Annotated[
        str, typer.Option("--methods", "-m", metavar="NAMES", help="Methods that score units, to be chosen from.")
    ] = ",".join(SearchRequest.methods),
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A sensitivity.json of `compress sensitivity`: families that bear little are cut less.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Validation samples to judge on, at most.")] = SearchRequest.samples,
    output: Bundle = LAST,
    force: Force = False,
    study: Study,
    scope: Scope,
    basics: AfterPruning,
    data: Data,
    shared: Shared,
) -> None:
    """Find the smallest model that holds an accuracy, and write it as prune does: refitted, verified and measured.

    Candidates are judged on a part of the training samples; the test samples are for the report alone.

    [bold]Examples[/bold]

      compress search sample_models/digits_mlp.pt --data digits --max-drop 0.5

      compress search sample_models/digits_mlp.pt --data digits --min-accuracy 0.98 --objective params -o small

      compress search sample_models/digits_mlp.pt --data digits --max-drop 1 --sensitivity sensitivity/sensitivity.json

      compress search sample_models/digits_vit.pt2 --data digits --max-drop 1 --epochs 20 -o found
    """
    out = shared.output()
    source = data.source()
    if source is None:
        raise InputError("search needs --data", hint=f"compress search {model.model} --data digits --max-drop 0.5")
    request = SearchRequest(
        model=model.source(),
        data=source,
        output=output,
        floor=floor.source(),
        objective=objective,
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        **vars(study),
        sensitivity=sensitivity,
        samples=samples,
        scope=scope.source(),
        training=basics.training(),
        running=running(basics),
        force=force,
        settings=shared.settings(),
        command=command_line(),
    )
    from compress import pipeline

    result = pipeline.search(request, out)
    out.result(result.to_json(), _page(result, source), str(result.bundle))


def _page(result: Searched, data: DataSource) -> str:
    """The front, before and after, and what to type next."""
    from compress.report import search, summary_rows

    header, rows = search.rows(result.document)
    parts = [
        layout.table(header, rows, right=range(3, len(header))),
        search.sentence(result.document),
        layout.table(("", "before", "after", "change"), summary_rows(result.report), right=(1, 2, 3)),
        "\n".join(
            f"{result.bundle / name}  {holds}"
            for name, holds in (("search.md ", "everything of the search"), ("pareto.svg", "its picture"))
        ),
        "Next:\n" + "\n".join(f"  {command}" for command in next_commands(result.bundle, data)),
    ]
    return "\n\n".join(parts)
