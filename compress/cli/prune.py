"""`compress prune`: the main job."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import registry
from compress.cli import layout, parse
from compress.cli.groups import Data, Model, Shared, flag, grouped
from compress.cli.methods import complete
from compress.cli.output import Output
from compress.errors import InputError
from compress.request import DEFAULT_RATIO, BudgetTarget, Granularity, PruneRequest

if TYPE_CHECKING:
    from compress.evaluate import Accuracy
    from compress.result import Pruned, Size

_BUDGET = "Budget (one of these)"
_SCOPE = "What may be pruned"


def add_to(app: typer.Typer) -> None:
    """Registers the command. Words that are no options of its own are left for the method."""
    app.command(
        "prune",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Options of the method follow like any other: see `compress methods NAME`.",
    )(grouped(_prune))


@dataclass(frozen=True)
class Budget:
    """How small the model shall get; one of these."""

    ratio: Annotated[
        float | None,
        typer.Option(
            help=f"Fraction of the units to remove, between 0 and 1. {DEFAULT_RATIO} where a method needs a "
            "budget and none is given.",
            show_default=False,
            rich_help_panel=_BUDGET,
        ),
    ] = None
    macs: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Multiply-accumulates to keep per sample: 0.5 of them, or 2G.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    params: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT", help="Parameters to keep: 0.5 of them, or 3M.", rich_help_panel=_BUDGET
        ),
    ] = None
    bytes: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Size of the weights to keep: 0.5 of it, or 5MB.",
            rich_help_panel=_BUDGET,
        ),
    ] = None

    def target(self, method: str, output: Output) -> BudgetTarget | None:
        """The budget; None where none was given and the method does without. Raises InputError."""
        given = parse.budget(self.ratio, self.macs, self.params, self.bytes)
        if given is not None or registry.find(method).kind != "criterion":
            return given
        output.step(f"No budget given: {DEFAULT_RATIO:.0%} of the units will go (--ratio {DEFAULT_RATIO})")
        return BudgetTarget("ratio", DEFAULT_RATIO)


@dataclass(frozen=True)
class Scope:
    """What of the model may go."""

    granularity: Annotated[
        Granularity,
        typer.Option(
            help="Whether a method that picks single weights removes whole units by them, or zeroes the "
            "weights and removes the units that are dead then.",
            rich_help_panel=_SCOPE,
        ),
    ] = "unit"
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Prune these layers alone; repeatable.",
            show_default=False,
            rich_help_panel=_SCOPE,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave these layers as they are; repeatable.",
            show_default=False,
            rich_help_panel=_SCOPE,
        ),
    ] = None
    prune_outputs: Annotated[
        bool,
        flag("--prune-outputs", help="Outputs of the model may shrink too.", rich_help_panel=_SCOPE),
    ] = False
    keep_module: Annotated[
        bool,
        flag(
            "--keep-module",
            help="Prune only what the original module's class can represent.",
            rich_help_panel=_SCOPE,
        ),
    ] = False


def _prune(
    context: typer.Context,
    *,
    model: Model,
    method: Annotated[
        str, typer.Option("--method", "-m", help="See `compress methods`.", autocompletion=complete)
    ] = "dependency",
    budget: Budget,
    scope: Scope,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The bundle to write.")
    ] = Path("compressed"),
    force: Annotated[bool, flag("--force", help="Replace DIR even where it holds something else.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="With --data: refit the smaller layers in closed form, on training samples without their labels, so "
            "that they give what the original gave.",
        ),
    ] = True,
    data: Data,
    shared: Shared,
) -> None:
    """Remove units from a trained model, verify the smaller one and write it with a report.

    [bold]Examples[/bold]

      compress prune resnet18.pth --ratio 0.3

      compress prune model.safetensors --arch models.py:build --data digits --macs 0.5

      compress prune model.pt --method tetris --bin 500 -o smaller

      compress prune vit.pth --params 3M --exclude 'blocks.0.*' --exclude head
    """
    out = shared.output()
    path, options = _sort_words(context, model.model, method)
    request = PruneRequest(
        model=model.source(path),
        output=output,
        method=method,
        options=options,
        budget=budget.target(method, out),
        granularity=scope.granularity,
        only=tuple(scope.only or ()),
        exclude=tuple(scope.exclude or ()),
        prune_outputs=scope.prune_outputs,
        keep_module=scope.keep_module,
        calibrate=calibrate,
        data=data.source(),
        force=force,
        settings=shared.settings(),
        command=("compress", *sys.argv[1:]),
    )
    from compress import pipeline

    result = pipeline.prune(request, out)
    out.result(result.to_json(), _page(result), str(result.bundle))


def _sort_words(context: typer.Context, model: Path, method: str) -> tuple[Path, dict[str, str]]:
    """MODEL and the options of the method, from what typer could not place.

    Typer takes the first word it does not know for MODEL, which is an option of the method where that
    stands before MODEL: `compress prune --bin 500 model.pt`.
    """
    flags = [flag for parameter in context.command.params for flag in parameter.opts if flag.startswith("--")]
    description = registry.describe(registry.find(method))
    plain, options = parse.method_options([str(model), *context.args], method, description.options, flags)
    if not plain:
        raise InputError("missing argument 'MODEL'", hint="compress prune --help")
    if len(plain) > 1:
        raise InputError(
            f"one MODEL at a time, got {' and '.join(plain)}",
            hint="an option of the command or of its method takes its value right after it",
        )
    return Path(plain[0]), options


def _page(result: Pruned) -> str:
    before, after = result.before, result.after
    rows = [
        ("units", *_compared(result.units_before, result.units_after)),
        ("parameters", *_compared(before.parameters, after.parameters)),
        *_zeroed(before, after),
        ("MACs", *_compared(before.macs, after.macs)),
        ("weights", *_compared(before.bytes, after.bytes, "B")),
    ]
    if before.accuracy and after.accuracy:
        points = 100 * (after.accuracy.accuracy - before.accuracy.accuracy)
        rows.append(
            ("accuracy", _accuracy(before.accuracy), _accuracy(after.accuracy), f"{points:+.1f} points")
        )
    compared = layout.table(("", "before", "after", "change"), rows, right=(1, 2, 3))
    return (
        f"{compared}\n\nVerified: differs from the masked original by {result.error:.1e} at most, in float64."
        f"\nWritten to {result.bundle}"
    )


def _zeroed(before: Size, after: Size) -> list[tuple[str, str, str, str]]:
    """A row for what is not zero where weights were set to zero, which the size alone does not show."""
    if before.nonzero is None or after.nonzero is None or after.nonzero >= 0.99 * after.parameters:
        return []
    return [("non-zero", *_compared(before.nonzero, after.nonzero))]


def _compared(before: int, after: int, unit: str = "") -> tuple[str, str, str]:
    return layout.amount(before, unit), layout.amount(after, unit), layout.change(before, after)


def _accuracy(accuracy: Accuracy) -> str:
    low, high = layout.percent(accuracy.low), layout.percent(accuracy.high)
    return f"{layout.percent(accuracy.accuracy)} ({low} to {high})"
