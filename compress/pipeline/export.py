"""`compress export`: a model in other formats, each checked after it was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compress.errors import InputError
from compress.export.pt2 import export_pt2
from compress.graph import trace
from compress.pipeline.bundle import export_weights
from compress.pipeline.opening import Opened, open_model
from compress.pipeline.sliced_onnx import export_as
from compress.progress import Progress
from compress.request import ExportFormat, ExportRequest
from compress.result import Artifact, Exported

TOLERANCE = 1e-3  # relative; float32 on another engine stays far below

_NAMES: dict[ExportFormat, str] = {"onnx": "model.onnx", "pt2": "model.pt2", "safetensors": "model.safetensors"}


def export_model(request: ExportRequest, progress: Progress) -> Exported:
    """Write every format that is asked for.

    Raises:
        InputError: The model or the place is wrong, or a file is there already.
        ModelError: The model cannot be expressed in a format.
    """
    source = request.model.path
    folder = request.output or (source if source.is_dir() else source.parent)
    targets = {name: _target(folder, name, source, request) for name in request.formats}
    opened = open_model(request.model, request.settings, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}", "choose another --output") from error
    writers: dict[ExportFormat, Callable[[Opened, Path], Artifact]] = {
        "onnx": _onnx,
        "pt2": _pt2,
        "safetensors": _safetensors,
    }
    artifacts = []
    for name, target in targets.items():
        progress.step(f"Writing {target}")
        artifact = writers[name](opened, target)
        if artifact.error is not None and artifact.error > TOLERANCE:
            progress.warn(f"what {target} computes differs from the model by {artifact.error:.1e}")
        artifacts.append(artifact)
    return Exported(tuple(artifacts))


def _target(folder: Path, name: ExportFormat, source: Path, request: ExportRequest) -> Path:
    """Where a format goes. A file of a bundle may be replaced by its like; the input never."""
    inside = request.output is None and source.is_dir()
    target = folder / _NAMES[name] if inside or request.output else folder / f"{source.stem}{Path(_NAMES[name]).suffix}"
    own = target.exists() and (target.resolve() == source.resolve() or (inside and name == "safetensors"))
    if own:
        raise InputError(f"{target} is the model itself", "choose another place with --output DIR")
    if target.exists() and not request.force and not inside:
        raise InputError(f"{target} exists", "--force replaces it, --output DIR writes elsewhere")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, the formats go into a directory", "choose another --output")
    return target


def _onnx(opened: Opened, target: Path) -> Artifact:
    done = export_as(opened.loaded.module, opened, 2, target)
    return Artifact(done.path, "onnx", done.bytes, done.max_error)


def _pt2(opened: Opened, target: Path) -> Artifact:
    done = export_pt2(opened.loaded.module, opened.examples(2), target)
    return Artifact(done.path, "pt2", done.bytes, done.max_error)


def _safetensors(opened: Opened, target: Path) -> Artifact:
    program = trace(opened.loaded.module, opened.examples(2))
    error = export_weights(program, opened, target)
    return Artifact(target, "safetensors", target.stat().st_size, error)
