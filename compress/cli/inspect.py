"""`compress inspect`: what a checkpoint holds and what of it can be pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from compress.cli import layout
from compress.cli.groups import Model, Shared, grouped
from compress.request import InspectRequest
from compress.wording import amount

if TYPE_CHECKING:
    from compress.report import Prunable
    from compress.result import Inspection, Kept

_NAMED = 3  # of layers or tensors in one cell


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("inspect")(grouped(_inspect))


def _inspect(model: Model, shared: Shared) -> None:
    """Show what a file holds: its layers, the units that can be removed, and what keeps its size and why.

    [bold]Examples[/bold]

      compress inspect sample_models/digits_mlp.pt

      compress inspect sample_models/digits_resnet.safetensors --arch sample_models/architectures.py:residual_cnn

      compress inspect compressed --json
    """
    output = shared.output()
    request = InspectRequest(model.source(), shared.settings())
    from compress import pipeline

    result = pipeline.inspect_model(request, output)
    output.result(result.to_json(), _page(result), result.architecture)


def _page(found: Inspection) -> str:
    types = found.input_types or ("float32",) * len(found.input_shapes)
    shapes = ", ".join(_input(shape, kind) for shape, kind in zip(found.input_shapes, types, strict=True))
    head = layout.pairs(
        [
            ("file", str(found.path)),
            ("form", found.form),
            ("architecture", found.architecture),
            ("input", shapes),
            ("size", amount(found.bytes, "B")),
            ("sha256", found.sha256),
            ("parameters", amount(found.parameters)),
            ("MACs", f"{amount(found.macs)} per sample"),
        ]
    )
    if found.onnx is not None:
        head += "\n" + layout.pairs(_of_onnx(found.onnx))
    layers = [
        (layer.name, _class(layer.kind), "x".join(map(str, layer.shape)), amount(layer.parameters))
        for layer in found.layers
    ]
    parts = [head]
    if layers:
        parts.append(layout.table(("layer", "kind", "weight", "parameters"), layers, right=(2, 3)))
    if found.groups:
        count = sum(group.size for group in found.groups)
        groups = [(group.name, group.kind, str(group.size), _layers(group.tensors)) for group in found.groups]
        parts.append(f"Units that can be removed, each from all layers of its row ({count:,} in all)")
        parts.append(layout.table(("group", "kind", "units", "layers"), groups, right=(2,)))
    else:
        parts.append("Nothing in this model can be removed.")
    if found.prunable is not None:
        parts += _share(found.prunable)
    if found.frozen:
        parts.append(layout.table(("keeps its size", "because"), _kept(found.frozen)))
    if found.notes:
        parts.append("\n".join(f"note: {note}" for note in found.notes))
    return "\n\n".join(parts)


def _of_onnx(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("ONNX opset", str(facts["opset"])),
        ("producer", facts["producer"] or "not said"),
        ("initialisers", f"{facts['initialisers']:,}"),
        ("inputs", ", ".join(facts["inputs"])),
        ("outputs", ", ".join(facts["outputs"])),
    ]


def _share(found: Prunable) -> list[str]:
    """How much can go, and what holds the rest."""
    share = layout.percent(found.indices / found.total) if found.total else "none"
    told = f"Prunable: {found.indices:,} of {found.total:,} channel indices of layer weights ({share})"
    rows = [(f"{held.indices:,}", held.reason, held.op, _some(held.places)) for held in found.held]
    return [told] + ([layout.table(("held", "because", "by", "in"), rows, right=(0,))] if rows else [])


def _input(shape: tuple[int, ...], kind: str) -> str:
    return "x".join(map(str, shape)) + ("" if kind == "float32" else f" {kind}")


def _class(kind: str) -> str:
    """Exported graphs keep the names of their layers, not the classes."""
    return "-" if kind in ("Module", "GraphModule", "InterpreterModule") else kind


def _layers(tensors: Sequence[str]) -> str:
    """The layers that tensors belong to: "fc1, fc2", "stem.0, stem.1, blocks.0.conv2 and 7 more"."""
    return _some(list(dict.fromkeys(tensor.rpartition(".")[0] or tensor for tensor in tensors)))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _kept(frozen: Sequence[Kept]) -> list[tuple[str, str]]:
    """One row per reason."""
    places: dict[str, list[str]] = {}
    for item in frozen:
        places.setdefault(item.reason, []).append(item.where or "(root)")
    return [(_some(where), reason) for reason, where in places.items()]
