"""`compress export`: the model in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.groups import LAST, Data, LastBundle, Shared, flag, grouped
from compress.errors import InputError
from compress.request import ExportFormat, ExportRequest, Precision
from compress.wording import amount

if TYPE_CHECKING:
    from compress.result import Exported

_FORMATS = "Formats (ONNX where none is named)"


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("export")(grouped(_export))


def _export(
    *,
    model: LastBundle,
    onnx: Annotated[
        bool, flag("--onnx", help="ONNX, run in ONNX Runtime and compared.", rich_help_panel=_FORMATS)
    ] = False,
    pt2: Annotated[
        bool, flag("--pt2", help="An exported program for torch.export.load.", rich_help_panel=_FORMATS)
    ] = False,
    safetensors: Annotated[
        bool,
        flag(
            "--safetensors",
            help="Weights and graph in one file, for compress.load.",
            rich_help_panel=_FORMATS,
        ),
    ] = False,
    pack: Annotated[
        bool,
        typer.Option(
            "--pack/--no-pack",
            help="Safetensors: tensors of many zeros as a bitmap and their values; dense tensors for other readers.",
            rich_help_panel=_FORMATS,
        ),
    ] = True,
    quantize: Annotated[
        Precision | None,
        typer.Option(
            help="Beside each format in lower precision: int8 (ONNX; calibrated on the training samples of --data), "
            "fp16, or bf16 (not ONNX).",
            show_default=False,
            rich_help_panel=_FORMATS,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Version of the ONNX operators; the exporter's default where left out.",
            show_default=False,
            rich_help_panel=_FORMATS,
        ),
    ] = None,
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where the files go; into the bundle, or beside the model, where left out.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, flag("--force", help="Replace files that exist.")] = False,
    shared: Shared,
) -> None:
    """Write a model in other formats, run what was written and compare its outputs with the model's.

    [bold]Examples[/bold]

      compress export

      compress export compressed --onnx --pt2

      compress export sample_models/digits_vit.pt2 --onnx --opset 17 -o deploy

      compress export compressed --quantize int8 --data digits
    """
    out = shared.output()
    wanted: tuple[tuple[ExportFormat, bool], ...] = (
        ("onnx", onnx),
        ("pt2", pt2),
        ("safetensors", safetensors),
    )
    formats = tuple(name for name, chosen in wanted if chosen)
    if model.model == LAST and not LAST.exists():
        raise InputError(f"{LAST} does not exist", "compress prune writes it; or name a model: compress export MODEL")
    request = ExportRequest(
        model.source(), formats or ("onnx",), output, force, shared.settings(), quantize, opset, data.source(), pack
    )
    from compress import pipeline

    result = pipeline.export_model(request, out)
    out.result(result.to_json(), _page(result), "\n".join(str(item.path) for item in result.artifacts))


def _page(result: Exported) -> str:
    """Without what is the same for all: precisions and accuracies are there where somebody asked for them."""
    precise = any(item.precision != "fp32" for item in result.artifacts)
    judged = any(item.accuracy is not None for item in result.artifacts)
    rows = []
    for item in result.artifacts:
        accuracy = "-" if item.accuracy is None else layout.percent(item.accuracy.accuracy)
        rows.append(
            (
                str(item.path),
                item.format,
                *((item.precision,) if precise else ()),
                amount(item.bytes, "B"),
                "not run" if item.error is None else f"{item.error:.1e}",
                *((accuracy,) if judged else ()),
            )
        )
    head = ("file", "format", *(("precision",) if precise else ()), "size", "largest difference from the model")
    first = 3 if precise else 2
    return layout.table((*head, *(("accuracy",) if judged else ())), rows, right=tuple(range(first, first + 3)))
