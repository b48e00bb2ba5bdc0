"""`compress prune`: the main job."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress import registry
from compress.cli import layout, parse
from compress.cli.budget import Budget, Spread
from compress.cli.bundle import Bundle, Force, Refitted, calibration
from compress.cli.groups import LAST, Data, Model, Shared, grouped
from compress.cli.methods import complete
from compress.cli.scope import KindsAndInputs
from compress.cli.training import WithPruning, running
from compress.errors import InputError
from compress.request import DataSource, PruneRequest, command_line
from compress.wording import plural

if TYPE_CHECKING:
    from compress.result import Pruned

_HOLDS = {
    "model.safetensors": "weights and graph; in Python: compress.load(DIR)",
    "module.safetensors": "smaller state dict, for the original class",
    "model.onnx": "the smaller model with the names of the original, for ONNX runtimes",
    "report.html": "the report, for people: open it in a browser",
    "report.md": "the report as a comment on a pull request",
    "report.json": "the report, for programs",
    "figures": "pictures of what was decided",
    "plan.json": "which indices of which tensor were kept",
    "recipe.toml": "every setting, resolved",
}
_LAYERS = 24  # whose changed arguments are listed


def add_to(app: typer.Typer) -> None:
    """Registers the command. Words that are no options of its own are left for the method."""
    app.command(
        "prune",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Options of the method follow like any other: see `compress methods NAME`.",
    )(grouped(_prune))


def _prune(
    context: typer.Context,
    *,
    model: Model,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="One of `compress methods`.", autocompletion=complete)
    ] = "dependency",
    budget: Budget,
    spread: Spread,
    scope: KindsAndInputs,
    output: Bundle = LAST,
    force: Force = False,
    calibrate: Annotated[
        bool,
        calibration(
            "With --data: refit the smaller layers to the original's outputs, in closed form, on training samples "
            "without their labels."
        ),
    ] = True,
    refit: Refitted = "auto",
    basics: WithPruning,
    data: Data,
    shared: Shared,
) -> None:
    """Remove units from a trained model, verify the smaller one and write it with a report.

    [bold]Examples[/bold]

      compress prune sample_models/digits_mlp.pt --ratio 0.3 --data digits

      compress prune sample_models/digits_resnet.safetensors --arch sample_models/architectures.py:residual_cnn

      compress prune sample_models/digits_mlp.pt --macs 0.5 --round-to auto --data digits -o small

      compress prune sample_models/digits_mlp.pt --method tetris --bin 500 --data digits -o smaller

      compress prune sample_models/digits_mlp.pt --data digits --ratio 0.5 --epochs 20

      compress prune sample_models/digits_mlp.pt --method annealing --keep 0.3 --data digits --epochs 20

      compress prune sample_models/digits_vit.pt2 --params 60k --allocation block --exclude 'blocks.0.*' -o narrow
    """
    out = shared.output()
    path, options = sort_words(context, model.model, method)
    request = PruneRequest(
        model=model.source(path),
        output=output,
        method=method,
        options=options,
        budget=budget.chosen(method, out),
        calibrate=calibrate,
        refit=refit,
        data=data.source(),
        training=basics.training(),
        running=running(basics),
        force=force,
        settings=shared.settings(),
        command=command_line(),
        **scope.settings(),
        **spread.settings(),
    )
    from compress import pipeline

    result = pipeline.prune(request, out)
    out.result(result.to_json(), page(result, request.data), str(result.bundle))


def sort_words(context: typer.Context, model: Path, method: str) -> tuple[Path, dict[str, str]]:
    """MODEL and the options of the method, from what typer could not place. Raises InputError.

    Typer takes the first word it does not know for MODEL, which is an option of the method where that
    stands before MODEL: `compress prune --bin 500 model.pt`.
    """
    flags = [flag for parameter in context.command.params for flag in parameter.opts if flag.startswith("--")]
    description = registry.describe(registry.find(method))
    plain, options = parse.method_options([str(model), *context.args], method, description.options, flags)
    if not plain:
        raise InputError("missing argument 'MODEL'", hint=f"{context.command_path} --help")
    if len(plain) > 1:
        raise InputError(
            f"one MODEL at a time, got {' and '.join(plain)}",
            hint="an option of the command or of its method takes its value right after it",
        )
    return Path(plain[0]), options


def page(result: Pruned, data: DataSource | None) -> str:
    """Before and after, what was checked, what was written and what to type next."""
    from compress.report import summary_rows

    checks = result.report["verification"]
    onnx = checks.get("onnx")
    judged = data if result.report["after"]["accuracy"] else None
    parts = [
        layout.table(("", "before", "after", "change"), summary_rows(result.report), right=(1, 2, 3)),
        *_budget(result.report),
        f"Verified: the slice, before any refit, differs from the masked original by {checks['slice']:.1e} (float64);\n"
        f"          the bundle, loaded in a new process, from what was written by {checks['reload']:.1e}"
        + ("." if onnx is None else f";\n          model.onnx, in ONNX Runtime, by {onnx:.1e}."),
        *_arguments(result.report),
        layout.table(("file", "holds"), _files(result.bundle)),
        "Next:\n" + "\n".join(f"  {command}" for command in next_commands(result.bundle, judged)),
    ]
    return "\n\n".join(parts)


def _budget(report: Mapping[str, Any]) -> list[str]:
    from compress.report import budget_text

    budget = report["method"]["budget"]
    text = "" if budget is None else budget_text(budget)
    if not text or (budget["kind"] == "ratio" and not budget["limited"]):  # units have a row already
        return []
    return [f"Budget: {text}."]


def _arguments(report: Mapping[str, Any]) -> list[str]:
    """How the original class has to be called for module.safetensors to fit."""
    from compress.report import argument_rows

    rows = argument_rows(report)
    if not rows:
        return []
    table = layout.table(
        ("layer", "class", "arguments"), [(layer or "(root)", *rest) for layer, *rest in rows[:_LAYERS]]
    )
    more = f"\nand {plural(len(rows) - _LAYERS, 'more layer')} in report.md" if len(rows) > _LAYERS else ""
    return [f"{report['module']['file']} fits the original class, called with other arguments:\n\n{table}{more}"]


def _files(bundle: Path) -> list[tuple[str, str]]:
    return [
        (str(bundle / name), text.replace("DIR", f'"{bundle}"'))
        for name, text in _HOLDS.items()
        if (bundle / name).exists()
    ]


def next_commands(bundle: Path, data: DataSource | None) -> list[str]:
    """What a user is likely to want of a bundle, ready to be typed."""
    where = shlex.quote(str(bundle))
    commands = [f"compress export {where} --onnx"]
    if data is not None:
        commands.append(f"compress eval {where} --data {shlex.quote(data.spec)}")  # it has --mean and --std in it
    return commands
