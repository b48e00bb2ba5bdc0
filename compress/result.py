"""What the pipeline answers. Plain numbers and texts, ready to be shown or written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.evaluate import Accuracy
    from compress.report import Prunable
    from compress.search import Sensitivity


@dataclass(frozen=True)
class Layer:
    """One module with parameters of its own."""

    name: str
    kind: str  # "Conv2d"
    shape: tuple[int, ...]  # of its weight
    parameters: int


@dataclass(frozen=True)
class UnitGroup:
    """Units that can be removed one by one, each from all of `tensors` at once."""

    name: str
    kind: str  # "channels", "heads", "features"
    size: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """Something that keeps its size, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds and what of it can be pruned."""

    path: Path
    form: str
    architecture: str
    sha256: str
    bytes: int
    input_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    macs: int  # multiply-accumulates for one sample
    layers: tuple[Layer, ...]
    groups: tuple[UnitGroup, ...]
    frozen: tuple[Kept, ...]
    notes: tuple[str, ...] = ()
    input_types: tuple[str, ...] = ()  # "float32", "int64", "int64<1000"
    prunable: Prunable | None = None
    onnx: Mapping[str, Any] | None = None  # opset, producer, names of inputs and outputs, number of initialisers

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return _tagged("compress.inspection/1", self)


@dataclass(frozen=True)
class Size:
    """How big a model is and, where data was given, how good."""

    parameters: int
    macs: int  # multiply-accumulates for one sample
    bytes: int  # of the weights as a file
    accuracy: Accuracy | None = None
    nonzero: int | None = None  # parameters that are not zero


@dataclass(frozen=True)
class Pruned:
    """The bundle that was written, and the comparison."""

    bundle: Path
    before: Size
    after: Size
    units_before: int
    units_after: int
    error: float  # largest difference between the slice and the masked original, in float64
    report: Mapping[str, Any]  # report.json

    def to_json(self) -> dict[str, Any]:
        """The report."""
        return dict(self.report)


@dataclass(frozen=True)
class Finetuned:
    """The bundle that was written, and its training."""

    bundle: Path
    best: int  # the epoch whose weights it holds; 0: as they came
    stopped: str  # why the training ended before its last epoch; "" if it did not
    report: Mapping[str, Any]  # report.json

    def to_json(self) -> dict[str, Any]:
        """The report."""
        return dict(self.report)


@dataclass(frozen=True)
class Sensitivities:
    """What every family of units bears, cut alone."""

    folder: Path
    model: Path
    sha256: str
    data: str
    method: str
    calibrated: bool
    seed: int
    accuracy: Accuracy  # of the whole model, on the samples that judge
    ratios: tuple[float, ...]
    families: tuple[Sensitivity, ...]
    command: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, in the form of docs/sensitivity.schema.json."""
        plain = _tagged("compress.sensitivity/1", self)
        del plain["folder"], plain["accuracy"]["per_class"]
        plain["families"] = [{**each["family"], "points": each["points"]} for each in plain["families"]]
        return plain


@dataclass(frozen=True)
class Searched:
    """The smallest model that holds the floor, and everything that was tried."""

    bundle: Path
    report: Mapping[str, Any]  # report.json of the bundle
    document: Mapping[str, Any]  # search.json

    def to_json(self) -> dict[str, Any]:
        """What was tried, in the form of docs/search.schema.json."""
        return dict(self.document)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of one model on the test split of one data source."""

    path: Path
    data: str
    accuracy: Accuracy

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return _tagged("compress.evaluation/1", self)


@dataclass(frozen=True)
class Timing:
    """One model's cost; times are seconds per batch."""

    path: Path
    parameters: int
    nonzero: int
    macs: int
    bytes: int
    p50: float
    p90: float


@dataclass(frozen=True)
class Measurement:
    """One model, or two that took turns so that both met the same machine."""

    models: tuple[Timing, ...]
    ratio: float | None  # of the medians, first over second: above 1 the second is faster
    batch_size: int
    runs: int
    threads: int
    device: str
    runtime: str = "torch"  # what computed: "torch" or "onnxruntime"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return _tagged("compress.measurement/1", self)


@dataclass(frozen=True)
class Artifact:
    """One file that was written, and how far its outputs are from the model's."""

    path: Path
    format: str
    bytes: int
    error: float | None  # largest relative difference; None where nothing could run it
    precision: str = "fp32"  # or "int8", "fp16", "bf16"
    accuracy: Accuracy | None = None  # of the file itself, where data was given


@dataclass(frozen=True)
class Exported:
    """The files that were written."""

    artifacts: tuple[Artifact, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return _tagged("compress.export/1", self)


def _tagged(schema: str, result: Any) -> dict[str, Any]:
    return {"schema": schema, **_plain(asdict(result))}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
