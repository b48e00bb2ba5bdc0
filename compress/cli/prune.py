"""`compress prune`: the main job."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import registry
from compress.cli import layout, parse
from compress.cli.groups import LAST, Data, Model, Shared, flag, grouped
from compress.cli.methods import complete
from compress.cli.output import Output
from compress.cli.training import AfterPruning, running
from compress.errors import InputError
from compress.request import DEFAULT_RATIO, BudgetTarget, DataSource, Granularity, PruneRequest, command_line

if TYPE_CHECKING:
    from compress.result import Pruned

_BUDGET = "Budget (one of these)"
_SCOPE = "What may be pruned"
_HOLDS = {
    "model.safetensors": "weights and graph; in Python: compress.load(DIR)",
    "module.safetensors": "smaller state dict, for the original class",
    "report.md": "the report, for people",
    "report.json": "the report, for programs",
    "figures": "pictures of what was decided",
    "plan.json": "which indices of which tensor were kept",
    "recipe.toml": "every setting, resolved",
}


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
            metavar="FRACTION",
            help=f"Units to remove, between 0 and 1. {DEFAULT_RATIO} where a method needs a budget and none is given.",
            show_default=False,
            rich_help_panel=_BUDGET,
        ),
    ] = None
    macs: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Multiply-accumulates to keep per sample: a fraction such as 0.5, or a number such as 2G.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    params: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Parameters to keep: a fraction such as 0.5, or a number such as 3M.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    bytes: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Size of the weights to keep: a fraction such as 0.5, or a size such as 5MB.",
            rich_help_panel=_BUDGET,
        ),
    ] = None

    def target(self, method: str, output: Output) -> BudgetTarget | None:
        """The budget; None where none was given and the method does without. Raises InputError."""
        given = parse.budget(self.ratio, self.macs, self.params, self.bytes)
        if given is not None or registry.find(method).kind != "criterion":
            return given
        output.step(f"No budget given: {DEFAULT_RATIO:.0%} will go (--ratio {DEFAULT_RATIO})")
        return BudgetTarget("ratio", DEFAULT_RATIO)


@dataclass(frozen=True)
class Scope:
    """What of the model may go."""

    granularity: Annotated[
        Granularity,
        typer.Option(
            help="For methods that pick single weights: unit removes whole units by what is left of them; weight "
            "zeroes the weights and removes the units that are dead then.",
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
        flag("--prune-outputs", help="Let the model's outputs shrink too.", rich_help_panel=_SCOPE),
    ] = False
    allow_frozen: Annotated[
        bool,
        flag(
            "--allow-frozen",
            help="Prune frozen parameters too (requires_grad is False); by default they keep their size.",
            rich_help_panel=_SCOPE,
        ),
    ] = False
    keep_module: Annotated[
        bool,
        flag(
            "--keep-module",
            help="Prune only what the original class can represent; its state dict is written too.",
            rich_help_panel=_SCOPE,
        ),
    ] = False


def _prune(
    context: typer.Context,
    *,
    model: Model,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="One of `compress methods`.", autocompletion=complete)
    ] = "dependency",
    budget: Budget,
    scope: Scope,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The bundle to write.")] = LAST,
    force: Annotated[bool, flag("--force", help="Replace DIR even where it is no bundle.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            metavar="",
            help="With --data: refit the smaller layers to the original's outputs, in closed form, on training samples "
            "without their labels.",
        ),
    ] = True,
    basics: AfterPruning,
    data: Data,
    shared: Shared,
) -> None:
    """Remove units from a trained model, verify the smaller one and write it with a report.

    [bold]Examples[/bold]

      compress prune resnet18.pth --ratio 0.3

      compress prune model.safetensors --arch models.py:build --data digits --macs 0.5

      compress prune model.pt --method tetris --bin 500 -o smaller

      compress prune resnet.safetensors --arch models.py:build --data digits --ratio 0.5 --epochs 20

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
        allow_frozen=scope.allow_frozen,
        keep_module=scope.keep_module,
        calibrate=calibrate,
        data=data.source(),
        training=basics.training(),
        running=running(basics),
        force=force,
        settings=shared.settings(),
        command=command_line(),
    )
    from compress import pipeline

    result = pipeline.prune(request, out)
    out.result(result.to_json(), _page(result, request.data), str(result.bundle))


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


def _page(result: Pruned, data: DataSource | None) -> str:
    """Before and after, what was checked, what was written and what to type next."""
    from compress.report import summary_rows

    checks = result.report["verification"]
    parts = [
        layout.table(("", "before", "after", "change"), summary_rows(result.report), right=(1, 2, 3)),
        f"Verified: the slice, before any refit, differs from the masked original by {checks['slice']:.1e} (float64);\n"
        f"          the bundle, loaded in a new process, from what was written by {checks['reload']:.1e}.",
        layout.table(("file", "holds"), _files(result.bundle)),
        "Next:\n" + "\n".join(f"  {command}" for command in _next(result.bundle, data)),
    ]
    return "\n\n".join(parts)


def _files(bundle: Path) -> list[tuple[str, str]]:
    return [
        (str(bundle / name), text.replace("DIR", f'"{bundle}"'))
        for name, text in _HOLDS.items()
        if (bundle / name).exists()
    ]


def _next(bundle: Path, data: DataSource | None) -> list[str]:
    """What a user is likely to want of a bundle, ready to be typed."""
    where = shlex.quote(str(bundle))
    commands = [f"compress export {where} --onnx"]
    if data is not None:
        words = ["--data", data.spec]
        for flag, values in (("--mean", data.mean), ("--std", data.std)):
            words += [flag, ",".join(f"{value:g}" for value in values)] if values else []
        commands.append(f"compress eval {where} {shlex.join(words)}")
    return commands
