"""Groups of options that several commands share, each a frozen dataclass, and how a command takes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from compress.cli import parse
from compress.cli.output import Color, Output
from compress.errors import InputError
from compress.request import DataSource, ModelSource, Settings

LAST = Path("compressed")  # the bundle that prune writes where no other place is said


def flag(*names: str, help: str, rich_help_panel: str | None = None) -> Any:
    """An option that stands alone; typer would show it as one that takes a value."""
    return typer.Option(*names, help=help, metavar="", rich_help_panel=rich_help_panel)


@dataclass(frozen=True)
class Shared:
    """What every command understands."""

    json: Annotated[bool, flag("--json", help="The result as JSON on stdout.", rich_help_panel="Shared")] = False
    quiet: Annotated[
        bool,
        flag("--quiet", "-q", help="The result at its shortest, and nothing else.", rich_help_panel="Shared"),
    ] = False
    verbose: Annotated[
        bool, flag("--verbose", "-v", help="Say more on the way, on stderr.", rich_help_panel="Shared")
    ] = False
    no_progress: Annotated[bool, flag("--no-progress", help="No progress bars.", rich_help_panel="Shared")] = False
    color: Annotated[
        Color, typer.Option(help="Colours of messages; NO_COLOR is respected.", rich_help_panel="Shared")
    ] = "auto"
    seed: Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Shared")] = 0
    device: Annotated[
        str, typer.Option(help="Where models are run: auto, cpu, cuda or cuda:N.", rich_help_panel="Shared")
    ] = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads. Where left out: torch decides, and latency is timed on 1.", rich_help_panel="Shared"
        ),
    ] = None
    debug: Annotated[
        bool, flag("--debug", help="Show the traceback where something fails.", rich_help_panel="Shared")
    ] = False

    def output(self) -> Output:
        """How to speak to the user. Raises InputError for `--quiet --verbose`."""
        if self.quiet and self.verbose:
            raise InputError("--quiet and --verbose contradict each other", hint="leave one")
        main = os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate launch number processes
        return Output(self.json, self.quiet, self.verbose, not self.no_progress, self.color, main)

    def settings(self) -> Settings:
        """What the pipeline wants of these. Raises InputError."""
        return Settings(self.seed, self.device, self.threads)


@dataclass(frozen=True)
class Model:
    """MODEL and what the user says of it."""

    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A checkpoint (.pt, .pth, .safetensors, .pt2, .onnx), a folder of weights, or a bundle.",
        ),
    ]
    arch: Annotated[
        str | None,
        typer.Option(
            help="The architecture, where the file does not say it: torchvision:NAME, timm:NAME, mlp:64-300-10, "
            "package.module:factory or file.py:factory.",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = None
    arch_args: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="""Arguments of the factory: '{"num_classes": 10}'.""",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = None
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE",
            help="Where the file does not say it: 3,224,224, without the batch; once per input. Token numbers: "
            "16:int64, or '16:int64<1000' to draw from a vocabulary of 1000.",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Which of several state dicts in a training checkpoint: ema, or model/state_dict.",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = None
    trust_pickle: Annotated[
        bool,
        flag(
            "--trust-pickle",
            help="Load a pickled module. This runs whatever code the file holds; what it imports is listed before.",
            rich_help_panel="Model",
        ),
    ] = False

    def source(self, path: Path | None = None) -> ModelSource:
        """The model to load, from `path` where given. Raises InputError."""
        shapes, types = parse.inputs(self.input_shape or ())
        return ModelSource(
            path=path or self.model,
            arch=self.arch,
            arch_args=parse.json_object(self.arch_args, "--arch-args"),
            input_shapes=shapes,
            input_types=types,
            trust_pickle=self.trust_pickle,
            weights=self.weights,
        )


@dataclass(frozen=True)
class LastBundle(Model):
    """As `Model`, but MODEL may be left out."""

    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A checkpoint (.pt, .pth, .safetensors, .pt2, .onnx), a folder of weights, or a bundle.",
        ),
    ] = LAST


@dataclass(frozen=True)
class Data:
    """Samples and their normalisation."""

    data: Annotated[
        str | None,
        typer.Option(
            help="digits, npz:PATH, folder:PATH, torchvision:NAME[:ROOT], package.module:function or file.py:function.",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Subtracted per channel, .485,.456,.406; from the checkpoint where it says so.",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Divides per channel.", show_default=False, rich_help_panel="Data"),
    ] = None

    def source(self) -> DataSource | None:
        """The data to load, None where none is wanted. Raises InputError."""
        mean, std = parse.numbers(self.mean, "--mean"), parse.numbers(self.std, "--std")
        if self.data is None:
            if mean is not None or std is not None:
                raise InputError("--mean and --std say how to read data, and there is none", hint="add --data")
            return None
        return DataSource(self.data, mean, std)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Spreads the parameters of `command` that are option groups into their fields, as typer wants them."""
    spread: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation) and isinstance(parameter.annotation, type):
            spread[name] = parameter.annotation
            parameters.extend(_parameters_of(parameter.annotation))
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        groups = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in spread.items()
        }
        command(**groups, **values)

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
