"""`compress eval`: accuracy on the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli import layout
from compress.cli.groups import Data, Model, Shared, grouped
from compress.errors import InputError
from compress.request import EvalRequest
from compress.wording import plural

if TYPE_CHECKING:
    from compress.evaluate import Accuracy
    from compress.result import Evaluation


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("eval")(grouped(_evaluate))


def _evaluate(
    *,
    model: Model,
    data: Data,
    batch_size: Annotated[int, typer.Option(help="Samples at a time.", rich_help_panel="Data")] = 256,
    shared: Shared,
) -> None:
    """Measure the accuracy of a model on the test split of the data, with its 95 % interval.

    [bold]Examples[/bold]

      compress eval compressed --data digits

      compress eval sample_models/digits_mlp.pt --data digits --mean 0 --std 1
    """
    output = shared.output()
    source = data.source()
    if source is None:
        raise InputError("eval needs --data", hint=f"compress eval {model.model} --data digits")
    request = EvalRequest(model.source(), source, batch_size, shared.settings())
    from compress import pipeline

    result = pipeline.evaluate_model(request, output)
    output.result(result.to_json(), _page(result), f"{result.accuracy.accuracy:.6f}")


def _page(result: Evaluation) -> str:
    found = result.accuracy
    return layout.pairs(
        [
            ("accuracy", layout.percent(found.accuracy)),
            ("95 % interval", f"{layout.percent(found.low)} to {layout.percent(found.high)}"),
            ("samples", f"{found.correct} of {found.count} right, {result.data}"),
            *([] if found.confidence is None else [("confidence", _sure(found, found.confidence))]),
        ]
    )


def _sure(found: Accuracy, confidence: float) -> str:
    classes = found.confident_classes
    return f"{layout.percent(confidence)} where right, mean of {plural(classes, 'class', 'classes')}"
