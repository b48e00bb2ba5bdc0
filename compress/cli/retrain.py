"""`compress retrain`: pruning while the network trains, with every option of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from compress import registry
from compress.cli.budget import Sizes
from compress.cli.bundle import Bundle, Force, Refitted, calibration
from compress.cli.groups import LAST, Data, Model, Shared, flag, grouped
from compress.cli.prune import page, sort_words
from compress.cli.scope import Kinds
from compress.cli.training import Basics, Details, running, training
from compress.errors import InputError
from compress.request import PruneRequest, command_line

_OF_PRUNE = {
    "--latency": ("a method prunes before the result can be timed", "--macs 0.5 is counted beforehand"),
    "--prune-inputs": ("a training reads all inputs", "leave it out; `compress prune` has it"),
    "--method": ("methods that train are modes here", "--mode NAME"),
    "-m": ("methods that train are modes here", "--mode NAME"),
}  # why they are not here


def add_to(app: typer.Typer) -> None:
    """Registers the command. Words that are no options of its own are left for the mode."""
    app.command(
        "retrain",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Options of the mode follow like any other: see `compress methods NAME`.",
    )(grouped(_retrain))


def complete(incomplete: str) -> list[str]:
    """Names of modes that begin with `incomplete`, for shell completion."""
    return sorted(name for name in _modes() if name.startswith(incomplete))


def _modes() -> list[str]:
    return sorted({method.name for method in registry.methods() if method.kind == "retrain"})


def _retrain(
    context: typer.Context,
    *,
    model: Model,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="NAME",
            help="annealing, diffsparse, dsc, standout, wiring or another of `compress methods`.",
            autocompletion=complete,
        ),
    ] = "annealing",
    budget: Sizes,
    scope: Kinds,
    output: Bundle = LAST,
    from_scratch: Annotated[
        bool,
        flag(
            "--from-scratch",
            help="Start from fresh weights, not from the checkpoint's; with --distill none by the labels alone.",
        ),
    ] = False,
    force: Force = False,
    calibrate: Annotated[
        bool,
        calibration("Refit the smaller layers to the outputs of the trained network, in closed form."),
    ] = True,
    refit: Refitted = "auto",
    basics: Basics,
    details: Details,
    data: Data,
    shared: Shared,
) -> None:
    """Prune a model while it trains, with the original as its teacher; verify the smaller one and write it.

    [bold]Examples[/bold]

      compress retrain sample_models/digits_mlp.pt --mode annealing --data digits --epochs 20

      compress retrain sample_models/digits_mlp.pt --keep 0.2 --granularity weight --data digits

      compress retrain sample_models/digits_mlp.pt --mode diffsparse --params 0.3 --data digits --epochs 20

      compress retrain sample_models/digits_vit.pt2 --unit-method dependency --macs 0.5 --data digits
    """
    _check(mode, [str(model.model), *context.args])
    out = shared.output()
    path, options = sort_words(context, model.model, mode)
    source = data.source()
    if source is None:
        raise InputError("retrain needs --data", hint=f"compress retrain {path} --data digits")
    request = PruneRequest(
        model=model.source(path),
        output=output,
        method=mode,
        options=options,
        budget=budget.chosen(mode, out),
        **scope.settings(),
        calibrate=calibrate,
        refit=refit,
        data=source,
        training=training(basics, details),
        running=running(basics, details),
        from_scratch=from_scratch,
        force=force,
        settings=shared.settings(),
        command=command_line(),
    )
    from compress import pipeline

    result = pipeline.prune(request, out)
    out.result(result.to_json(), page(result, request.data), str(result.bundle))


def _check(mode: str, words: Sequence[str]) -> None:
    """Raises InputError where the mode is none, or where a word is an option of prune that makes no sense here."""
    for name in (word.partition("=")[0] for word in words):
        if name in _OF_PRUNE:
            reason, hint = _OF_PRUNE[name]
            raise InputError(f"no option {name} in a training: {reason}", hint)
    known = _modes()
    if mode in known:
        return
    if any(method.name == mode for method in registry.methods()):
        raise InputError(f"--mode {mode}: {mode} does not train", hint=f"compress prune MODEL --method {mode}")
    near = registry.did_you_mean(mode, known)
    raise InputError(f"--mode {mode}: there is no such mode", hint=near or f"modes are {', '.join(known)}")
