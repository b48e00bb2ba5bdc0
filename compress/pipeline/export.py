"""`compress export`: a model in other formats, each checked after it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.errors import InputError
from compress.export.opset import check_opset
from compress.pipeline import formats
from compress.pipeline.opening import Opened, open_model
from compress.progress import Progress
from compress.request import ExportFormat, ExportRequest, Precision
from compress.result import Artifact, Exported

TOLERANCE = 1e-3  # relative; float32 on another engine stays far below
POINT = 0.01  # of accuracy


def export_model(request: ExportRequest, progress: Progress) -> Exported:
    """Write every format that is asked for.

    Raises:
        InputError: The model or the place is wrong, or a file is there already.
        ModelError: The model cannot be expressed in a format.
    """
    source = request.model.path
    folder = request.output or (source if source.is_dir() else source.parent)
    jobs = [job for name in request.formats for job in _jobs(folder, name, source, request)]
    if request.opset is not None:
        check_opset(request.opset)
    opened = open_model(request.model, request.settings, request.data, progress, judged=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}", "choose another --output") from error
    artifacts: list[Artifact] = []
    for job in jobs:
        progress.step(f"Writing {job.target}")
        made = _written(job, opened, request, artifacts, progress)
        artifacts.append(formats.judged(made, opened, progress))
    _tell(artifacts, progress)
    if opened.loaded.packed and (dense := [str(each.path) for each in artifacts if each.format != "safetensors"]):
        progress.step(f"{', '.join(dense)}: every zero is stored there; only safetensors packs them")
    return Exported(tuple(artifacts))


@dataclass(frozen=True)
class _Job:
    """One file to write; without a precision in that of the model."""

    format: ExportFormat
    target: Path
    precision: Precision | None = None


def _jobs(folder: Path, name: ExportFormat, source: Path, request: ExportRequest) -> list[_Job]:
    """A format as it is and, where asked for, quantised beside it."""
    low = request.quantize
    if low is None:
        return [_Job(name, _target(folder, name, source, request))]
    quantised = _Job(name, _target(folder, name, source, request, low), low)
    if name == "safetensors":  # that the whole one is there already is the usual case
        return [quantised]
    return [_Job(name, _target(folder, name, source, request)), quantised]


def _written(job: _Job, opened: Opened, request: ExportRequest, before: list[Artifact], progress: Progress) -> Artifact:
    if job.precision == "int8":
        source = next(each for each in before if each.format == "onnx")
        return formats.int8(opened, source.path, job.target, request.settings.seed, progress)
    if job.format == "onnx":
        return formats.onnx(opened, job.target, job.precision, request.opset)
    if job.format == "pt2":
        return formats.pt2(opened, job.target, job.precision)
    return formats.safetensors(opened, job.target, job.precision, request.pack)


def _tell(artifacts: list[Artifact], progress: Progress) -> None:
    """What computes something else than the model, or costs accuracy."""
    whole = {each.format: each.accuracy for each in artifacts if each.precision == "fp32"}
    for each in artifacts:
        if each.precision == "fp32" and each.error is not None and each.error > TOLERANCE:
            progress.warn(f"what {each.path} computes differs from the model by {each.error:.1e}")
        base = whole.get(each.format)
        if base is not None and each.accuracy is not None and base.accuracy - each.accuracy.accuracy > POINT:
            lost = 100 * (base.accuracy - each.accuracy.accuracy)
            progress.warn(f"{each.path} loses {lost:.2f} points of accuracy")


def _target(
    folder: Path, name: ExportFormat, source: Path, request: ExportRequest, precision: Precision | None = None
) -> Path:
    """Where a format goes. A file of a bundle may be replaced by its like; the input never."""
    inside = request.output is None and source.is_dir()
    stem = "model" if inside or request.output else source.stem
    target = folder / (f"{stem}.{name}" if precision is None else f"{stem}.{precision}.{name}")
    own = target.exists() and target.resolve() == source.resolve()
    if own or (inside and target.name == "model.safetensors" and target.exists()):
        raise InputError(f"{target} is the model itself", "choose another place with --output DIR")
    if target.exists() and not request.force and not inside:
        raise InputError(f"{target} exists", "--force replaces it, --output DIR writes elsewhere")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, the formats go into a directory", "choose another --output")
    return target
