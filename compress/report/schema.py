"""What report.json holds. Whatever was not measured is null; no number is filled in for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import compress
from compress.report.plain import plain, versions

if TYPE_CHECKING:
    from compress.evaluate import Accuracy
    from compress.measure import Latency

SCHEMA = "compress.report/1"


@dataclass(frozen=True)
class InputFile:
    """The model that was given; `architecture` as ``--arch`` writes it, `notes` on how it was read."""

    path: str
    sha256: str
    bytes: int
    form: str
    architecture: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataUsed:
    """The data and how many samples of it served for what; None where it served for nothing of the kind.

    ``class_names`` are by number, and none where the data has no names for them.
    """

    spec: str
    train: int | None = None
    calibration: int | None = None
    test: int | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What was asked for, and what came of it.

    Attributes:
        kind: "ratio" (fraction removed), "macs", "params", "bytes" or "latency" (kept).
        value: As it was given: below 1 a fraction, else an absolute value.
        target: The fraction of units to remove, or the largest size within the budget.
        reached: The fraction that was removed, or the size.
        limited: Whether more than 2 % lie between them, as there are no allowed widths that are nearer.
        counted: Of a ratio, what it is a fraction of.
    """

    kind: str
    value: float
    target: float | None = None
    reached: float | None = None
    limited: bool | None = None
    counted: str = "units"


@dataclass(frozen=True)
class Method:
    """The method, its options by name, the budget and what the method says per layer."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget | None = None
    granularity: str | None = None
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measures:
    """One model.

    Attributes:
        params: Parameters; tied ones once. What the network really holds.
        nonzero: Of them, those that are not zero.
        nominal: For methods that zero single weights, how many weights of the tensors that they look at are not zero;
            biases, norms, other layers and what is cut out besides do not count. What papers call compression.
        macs: Multiply-accumulates for one sample.
        bytes: Of the weights as a file.
        files: Size of each file on disk by its name.
        accuracy: On the test data.
        latency: In seconds per batch, and the runtime it was measured in.
    """

    params: int
    nonzero: int | None = None
    macs: int | None = None
    bytes: int | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    nominal: int | None = None


@dataclass(frozen=True)
class LayerChange:
    """One layer; widths are its outputs; `frozen` says why it kept its width, None if it could shrink."""

    name: str
    kind: str
    before: int
    after: int
    frozen: str | None = None


@dataclass(frozen=True)
class GroupChange:
    """Units that live and die together, before and after."""

    name: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class Pin:
    """An operation that keeps what it reads at full size, where it is, and why."""

    op: str
    where: str
    reason: str


@dataclass(frozen=True)
class Held:
    """Indices that no unit can remove, for one reason; `op` is "" where it is a consequence of others."""

    reason: str
    op: str
    places: tuple[str, ...]  # modules; the network itself is none
    indices: int


@dataclass(frozen=True)
class Prunable:
    """How many channel indices of all layer weights a unit can remove, and what holds the others, most first."""

    indices: int
    total: int
    held: tuple[Held, ...] = ()


@dataclass(frozen=True)
class RolledBack:
    """A family of units that was left whole after all, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Picture:
    """A figure in the bundle: its path there, and what it shows."""

    file: str
    title: str


@dataclass(frozen=True)
class Verification:
    """Largest relative differences; None where it was not run.

    Attributes:
        slice: Smaller model against the masked original, in float64.
        reload: Bundle loaded in a new process against the model that was written.
        onnx: ONNX Runtime against the model.
    """

    slice: float | None = None
    reload: float | None = None
    onnx: float | None = None


@dataclass(frozen=True)
class Argument:
    """A constructor argument of one layer ("" for the module itself) that has to change with the weights."""

    layer: str
    kind: str  # its class
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class ModuleFile:
    """The smaller state dict of the user's own class.

    Attributes:
        file: Its name in the bundle.
        reload: Largest relative difference of the module that was loaded from it, from what was written.
        arguments: What has to change in the constructors for the state dict to fit.
    """

    file: str
    reload: float
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Gate:
    """One limit: its name, what was allowed, what was found (None if it was not measured), and the verdict."""

    name: str
    limit: float
    value: float | None
    passed: bool


@dataclass(frozen=True)
class Report:
    """Everything about one run; see the classes of the parts.

    Attributes:
        command: As typed, word for word.
        recipe: The resolved recipe as TOML; None without one.
        speedup: Median latency before over after, measured side by side; above 1 is faster.
        history: Of a training, one entry per epoch: names and numbers.
        best_epoch: Of a training, the epoch whose weights were written; 0: as they came.
        untrained_accuracy: Share of the test samples that were right before a training that came after the cut.
        prunable: Of the channel indices of all layer weights, how many could be pruned, and what holds the others.
        figures: Pictures beside the report.
        module: The state dict for the user's own class, where that was to be kept.
    """

    command: tuple[str, ...]
    seed: int
    device: str
    input: InputFile
    method: Method
    before: Measures
    after: Measures
    recipe: str | None = None
    threads: int | None = None
    data: DataUsed | None = None
    speedup: float | None = None
    layers: tuple[LayerChange, ...] = ()
    groups: tuple[GroupChange, ...] = ()
    pins: tuple[Pin, ...] = ()
    prunable: Prunable | None = None
    rolled_back: tuple[RolledBack, ...] = ()
    figures: tuple[Picture, ...] = ()
    module: ModuleFile | None = None
    verification: Verification = Verification()
    history: tuple[Mapping[str, Any], ...] = ()
    best_epoch: int | None = None
    untrained_accuracy: float | None = None
    warnings: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=versions)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, in the form of docs/report.schema.json.

        Raises:
            CompressError: A number is not finite; a report of it would say what nobody measured.
        """
        tool = {"name": "compress", "version": compress.__version__}
        return {"schema": SCHEMA, "tool": tool, **plain(self, "report")}


def build_report(**parts: Any) -> dict[str, Any]:
    """report.json from the fields of :class:`Report`; versions of the libraries are added.

    Raises:
        CompressError: A number is not finite.
        TypeError: A field is missing or unknown.
    """
    return Report(**parts).to_json()
