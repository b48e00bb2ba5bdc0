"""`compress inspect`: what a checkpoint holds and what of it can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from compress.cli import layout
from compress.cli.groups import Model, Shared, grouped
from compress.request import InspectRequest

if TYPE_CHECKING:
    from compress.result import Inspection


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("inspect")(grouped(_inspect))


def _inspect(model: Model, shared: Shared) -> None:
    """Show what a file is, its layers, the units that can be removed, and what is frozen and why.

    [bold]Examples[/bold]

      compress inspect resnet18.pth

      compress inspect model.safetensors --arch models.py:build --input-shape 1,28,28

      compress inspect compressed --json
    """
    output = shared.output()
    request = InspectRequest(model.source(), shared.settings())
    from compress import pipeline

    result = pipeline.inspect_model(request, output)
    output.result(result.to_json(), _page(result), result.architecture)


def _page(found: Inspection) -> str:
    shapes = ", ".join("x".join(map(str, shape)) for shape in found.input_shapes)
    head = layout.pairs(
        [
            ("file", str(found.path)),
            ("form", found.form),
            ("architecture", found.architecture),
            ("input", shapes),
            ("size", layout.amount(found.bytes, "B")),
            ("sha256", found.sha256),
            ("parameters", layout.amount(found.parameters)),
            ("MACs", f"{layout.amount(found.macs)} per sample"),
        ]
    )
    layers = [
        (layer.name, layer.kind, "x".join(map(str, layer.shape)), layout.amount(layer.parameters))
        for layer in found.layers
    ]
    groups = [(group.name, group.kind, str(group.size), str(len(group.tensors))) for group in found.groups]
    parts = [
        head,
        *([layout.table(("layer", "kind", "weight", "parameters"), layers, right=(2, 3))] if layers else []),
        layout.table(("units", "kind", "number", "tensors"), groups, right=(2, 3))
        if groups
        else "Nothing in this model can be pruned.",
    ]
    if found.frozen:
        kept = [(item.where, item.reason) for item in found.frozen]
        parts.append(layout.table(("keeps its size", "because"), kept))
    if found.notes:
        parts.append("\n".join(found.notes))
    return "\n\n".join(parts)
