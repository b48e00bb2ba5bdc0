"""`compress measure`: size and latency, alone or side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.groups import Model, Shared, grouped
from compress.request import MeasureRequest, Runtime
from compress.wording import amount, milliseconds, plural

if TYPE_CHECKING:
    from compress.result import Measurement


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("measure")(grouped(_measure))


def _measure(
    *,
    model: Model,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="A second model. The two take turns, so that both meet the same machine.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per run.")] = 1,
    runs: Annotated[int, typer.Option(help="Timed runs of each model, at least.")] = 50,
    warmup: Annotated[int, typer.Option(help="Runs before the clock starts.")] = 5,
    runtime: Annotated[
        Runtime,
        typer.Option(help="What computes: PyTorch, or ONNX Runtime on the CPU, for which the models are exported."),
    ] = "torch",
    shared: Shared,
) -> None:
    """Measure parameters, MACs, size and latency of a model, alone or side by side with another.

    [bold]Examples[/bold]

      compress measure compressed

      compress measure sample_models/digits_mlp.pt --against compressed --runs 200 --threads 1

      compress measure sample_models/digits_mlp.pt --against compressed --runtime onnxruntime
    """
    output = shared.output()
    request = MeasureRequest(
        model=model.source(),
        against=model.source(against) if against else None,
        batch_size=batch_size,
        runs=runs,
        warmup=warmup,
        runtime=runtime,
        settings=shared.settings(),
    )
    from compress import pipeline

    result = pipeline.measure_model(request, output)
    output.result(result.to_json(), _page(result), "\n".join(f"{timing.p50:.9f}" for timing in result.models))


def _page(result: Measurement) -> str:
    rows = [
        (
            str(timing.path),
            amount(timing.parameters),
            amount(timing.nonzero),
            amount(timing.macs),
            amount(timing.bytes, "B"),
            milliseconds(timing.p50),
            milliseconds(timing.p90),
        )
        for timing in result.models
    ]
    header = ("model", "parameters", "non-zero", "MACs", "weights", "p50", "p90")
    conditions = (
        f"{plural(result.runs, 'run')}, batch {result.batch_size}, {result.runtime} on {result.device}, "
        f"{plural(result.threads, 'thread')}"
    )
    parts = [layout.table(header, rows, right=range(1, 7)), conditions]
    if result.ratio is not None:
        first, second = (timing.path for timing in result.models)
        parts.append(f"{second} takes {1 / result.ratio:.2f} of the time of {first} ({result.ratio:.2f}x as fast)")
    return "\n\n".join(parts)
