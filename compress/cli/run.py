"""`compress init` and `compress run`: a run from a file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli import finetune, layout, prune
from compress.cli.bundle import Force
from compress.cli.groups import LAST, Shared, flag, grouped
from compress.cli.output import Output
from compress.errors import InputError
from compress.files import write_whole
from compress.recipe import read_recipe, request_of, template, to_toml
from compress.request import FinetuneRequest, PruneRequest, command_line
from compress.training import Running
from compress.wording import plural

RECIPE = Path("recipe.toml")


def add_to(app: typer.Typer) -> None:
    """Registers both commands."""
    app.command("init")(grouped(_init))
    app.command("run", epilog="What a recipe may hold: `compress init` explains it.")(grouped(_run))


def _init(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe to write.")] = RECIPE,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="The checkpoint or bundle that it is about.")
    ] = "model.pt",
    arch: Annotated[str | None, typer.Option(help="Its architecture, as for prune.", show_default=False)] = None,
    force: Annotated[bool, flag("--force", help="Replace FILE.")] = False,
    shared: Shared,
) -> None:
    """Write a commented recipe to start from: half of the units go, refitted on the digits.

    [bold]Examples[/bold]

      compress init --model sample_models/digits_mlp.pt

      compress init small.toml --model sample_models/digits_mlp.pt
    """
    out = shared.output()
    if file.exists() and not force:
        raise InputError(f"{file} exists and is left alone", "choose another name, or --force to replace it")
    write_whole(file, template(model, arch).encode())
    told = f"{file} is written. Next:\n  compress run {shlex.quote(str(file))} --dry-run"
    out.result({"schema": "compress.init/1", "recipe": str(file)}, told, str(file))


def _run(
    context: typer.Context,
    *,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="A recipe, such as the one in a bundle.")],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value for this run, such as prune.budget.value=0.3. Repeatable.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Check the recipe and show what would be done.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help=f"The bundle to write. Where left out: {LAST}, or {finetune.OUTPUT} where nothing is pruned.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    resume: Annotated[bool, flag("--resume", help="Go on with the training of an interrupted run.")] = False,
    trust_pickle: Annotated[
        bool, flag("--trust-pickle", help="Load a pickled module. This runs whatever code the file holds.")
    ] = False,
    shared: Shared,
) -> None:
    """Do what a recipe says: prune, prune while training, or train, and write the bundle.

    The recipe in a bundle gives the same bundle again. A recipe can name code (arch, data): read a stranger's first.

    [bold]Examples[/bold]

      compress run recipe.toml --dry-run

      compress run recipe.toml --set prune.budget.value=0.3 -o small

      compress run compressed/recipe.toml -o again
    """
    out = shared.output()
    read = read_recipe(recipe, [*_shared(context, shared), *(change or ())])
    place = output or (LAST if "prune" in read else finetune.OUTPUT)
    request = replace(
        request_of(read, place, trust_pickle=trust_pickle),
        running=Running(resume),
        force=force,
        command=command_line(),
    )
    if resume and request.training is None:
        raise InputError("--resume goes on with a training, and the recipe has none", "leave it out")
    if dry_run:
        _show(request, read, out)
    else:
        _do(request, out)


def _shared(context: typer.Context, shared: Shared) -> list[str]:
    """Seed, device and threads where they were typed: these count before the recipe's."""
    names = ("seed", "device", "threads")
    typed = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    return [f"{name}={getattr(shared, name)}" for name in typed]


def _do(request: PruneRequest | FinetuneRequest, out: Output) -> None:
    from compress import pipeline

    if isinstance(request, PruneRequest):
        pruned = pipeline.prune(request, out)
        out.result(pruned.to_json(), prune.page(pruned, request.data), str(pruned.bundle))
        return
    trained = pipeline.finetune_model(request, out)
    out.result(trained.to_json(), finetune.page(trained, request.data), str(trained.bundle))


def _show(request: PruneRequest | FinetuneRequest, recipe: Mapping[str, Any], out: Output) -> None:
    """What would be done; the options of the method are checked, which imports it."""
    from compress.checkpoint.write import check_output
    from compress.registry import create

    check_output(request.output, request.force)
    steps = []
    if isinstance(request, PruneRequest):
        create(request.method, request.options)
        steps.append(("prune", f"{request.model.path} by {request.method}, {_budget(request)}"))
    if request.training is not None:
        steps.append(("train", f"{plural(request.training.epochs, 'epoch')}, learning rate {request.training.peak:g}"))
    steps.append(("data", request.data.spec if request.data else "none: nothing is refitted, no accuracy is known"))
    steps.append(("write", str(request.output)))
    document = {"schema": "compress.dryrun/1", "steps": dict(steps), "recipe": recipe}
    out.result(document, f"{layout.pairs(steps)}\n\n{to_toml(recipe).rstrip()}", str(request.output))


def _budget(request: PruneRequest) -> str:
    budget = request.budget
    if budget is None:
        return "which decides how much goes, or 30 % of the units"
    return f"{budget.kind} {budget.value:g}"
