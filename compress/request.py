"""What can be asked of the pipeline. One frozen dataclass per question, checked where it is made.

Nothing here imports torch, so that a command line is refused at once where it is wrong.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from compress.errors import InputError
from compress.inputs import InputType
from compress.training import Running, Training
from compress.wording import plural

BudgetKind = Literal["ratio", "macs", "params", "bytes", "latency"]
Granularity = Literal["unit", "weight"]
Refit = Literal["auto", "norms", "layers", "joint"]
Allocation = Literal["local", "global", "block"]
Target = Literal["onnxruntime-cpu", "cuda", "none"]
ExportFormat = Literal["onnx", "pt2", "safetensors"]
Precision = Literal["int8", "fp16", "bf16"]
Runtime = Literal["torch", "onnxruntime"]

DEFAULT_RATIO = 0.3


@dataclass(frozen=True)
class Settings:
    """What every run has in common."""

    seed: int = 0
    device: str = "auto"  # "auto" | "cpu" | "cuda" | "cuda:N"
    threads: int | None = None  # None: as many as torch takes by itself

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be between 0 and 2^63 - 1, got {self.seed}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InputError(f"--device {self.device!r} is unknown", hint="auto, cpu, cuda or cuda:N")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be at least 1, got {self.threads}")


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint and what the user says of it; the rest is found in the file."""

    path: Path
    arch: str | None = None  # "torchvision:NAME", "timm:NAME", "package.module:factory", "file.py:factory"
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shapes: tuple[tuple[int, ...], ...] | None = None  # per input, without the batch
    trust_pickle: bool = False
    input_types: tuple[InputType, ...] = ()  # per input; none: as the file says, or float32
    weights: str | None = None  # which of several state dicts in a training checkpoint: "ema", "model/state_dict"

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist", hint="MODEL is a checkpoint file or a bundle")
        if self.arch_args and self.arch is None:
            raise InputError("--arch-args needs --arch", hint="--arch torchvision:resnet18")


@dataclass(frozen=True)
class DataSource:
    """Where samples come from, and how they are normalised: (value - mean) / std per channel."""

    spec: str  # "digits", "npz:PATH", "folder:PATH", "torchvision:NAME[:ROOT]", "package.module:function"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std belong together", hint="--mean .485,.456,.406 --std .229,.224,.225")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise InputError(f"--mean has {plural(len(self.mean), 'value')} and --std {len(self.std)}")
            if min(self.std) <= 0:
                raise InputError(f"--std must be above 0, got {min(self.std):g}")


@dataclass(frozen=True)
class BudgetTarget:
    """How small the model shall get.

    `ratio` is the fraction of units to remove, in (0, 1). The other kinds say what to keep: a fraction of
    the original where below 1, else a number of MACs, parameters, bytes or microseconds.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if self.kind == "ratio" and not 0 < self.value < 1:
            percent = f"--ratio {self.value / 100:g} removes {self.value:g} % of the units"
            raise InputError(
                f"--ratio must be between 0 and 1, got {self.value:g}",
                hint=percent if 1 <= self.value < 100 else f"--ratio {DEFAULT_RATIO}",
            )
        if not math.isfinite(self.value) or self.value <= 0:
            raise InputError(f"--{self.kind} must be above 0, got {self.value:g}")


@dataclass(frozen=True)
class InspectRequest:
    """What is in this file?"""

    model: ModelSource
    settings: Settings = Settings()


@dataclass(frozen=True)
class PruneRequest:
    """Make this model smaller and write a bundle."""

    model: ModelSource
    output: Path
    method: str = "dependency"
    options: Mapping[str, str] = field(default_factory=dict)  # of the method, texts by field name
    budget: BudgetTarget | None = None  # None: what the method decides; DEFAULT_RATIO for a criterion
    granularity: Granularity = "unit"
    only: tuple[str, ...] = ()  # globs on layer names
    exclude: tuple[str, ...] = ()
    prune_outputs: bool = False
    prune_inputs: bool = False  # inputs of shape (N, F) alone
    allow_frozen: bool = False  # prune what requires no gradient, too
    keep_module: bool = False
    calibrate: bool = True  # refit the layers on the training data, where data is given
    refit: Refit = "auto"  # how: batch norms alone, layers one by one, or also together with those before them
    data: DataSource | None = None
    training: Training | None = None  # afterwards, with the original as teacher
    running: Running = field(default_factory=Running)
    force: bool = False
    settings: Settings = Settings()
    command: tuple[str, ...] = ()  # as typed, for the report
    allocation: Allocation = "local"  # how the budget is spread over the layers
    ratio_of: tuple[tuple[str, float], ...] = ()  # globs on layer names, and the fraction that goes of what they match
    round_to: int | Literal["auto"] = 1  # what smaller widths are multiples of; auto: what `target` likes
    target: Target = "onnxruntime-cpu"
    steps: int = 1  # rounds in which the budget is approached
    kept_out: float = 0.0  # share of the training samples that method and refit do not see
    from_scratch: bool = False  # a method that prunes in training starts from fresh weights, not from the checkpoint's

    def __post_init__(self) -> None:
        _check_choice("--granularity", self.granularity, get_args(Granularity))
        _check_choice("--refit", self.refit, get_args(Refit))
        if self.refit != "auto" and not self.calibrate:
            raise InputError(f"--refit {self.refit} and --no-calibrate contradict each other", hint="leave one")
        if self.refit != "auto" and self.data is None:
            raise InputError(f"--refit {self.refit} looks at training samples, and there are none", hint="add --data")
        _check_choice("--allocation", self.allocation, get_args(Allocation))
        _check_choice("--target", self.target, get_args(Target))
        if self.target == "none" and self.budget is not None and self.budget.kind == "latency":
            raise InputError("--latency is measured on a target, and there is none", hint="--target onnxruntime-cpu")
        _check_at_least_one("--steps", self.steps)
        if self.round_to != "auto":
            _check_at_least_one("--round-to", self.round_to)
        _check_fractions(self.ratio_of)
        if self.training is not None and self.data is None:
            raise InputError("--epochs trains on data, and there is none", hint="add --data")


@dataclass(frozen=True)
class FinetuneRequest:
    """Train this model again and write its best epoch as a bundle."""

    model: ModelSource
    data: DataSource
    output: Path
    training: Training = field(default_factory=Training)
    running: Running = field(default_factory=Running)
    teacher: ModelSource | None = None  # the original; None: the file that a bundle names, if it is there
    force: bool = False
    settings: Settings = Settings()
    command: tuple[str, ...] = ()  # as typed, for the report


def command_line() -> tuple[str, ...]:
    """The command as typed, for the report."""
    return ("compress", *sys.argv[1:])


@dataclass(frozen=True)
class EvalRequest:
    """How accurate is this model on the test split of the data?"""

    model: ModelSource
    data: DataSource
    batch_size: int = 256
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        _check_at_least_one("--batch-size", self.batch_size)


@dataclass(frozen=True)
class MeasureRequest:
    """How fast is this model, alone or side by side with another?"""

    model: ModelSource
    against: ModelSource | None = None
    batch_size: int = 1
    runs: int = 50
    warmup: int = 5
    runtime: Runtime = "torch"
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        _check_choice("--runtime", self.runtime, get_args(Runtime))
        if self.runtime == "onnxruntime" and self.settings.device.startswith("cuda"):
            raise InputError("--runtime onnxruntime runs on the CPU", "leave out --device, or measure --runtime torch")
        _check_at_least_one("--batch-size", self.batch_size)
        _check_at_least_one("--runs", self.runs)
        if self.warmup < 0:
            raise InputError(f"--warmup must be at least 0, got {self.warmup}")


@dataclass(frozen=True)
class ExportRequest:
    """Write this model in other formats."""

    model: ModelSource
    formats: tuple[ExportFormat, ...] = ("onnx",)
    output: Path | None = None  # a directory; None: the bundle itself, or where the file lies
    force: bool = False
    settings: Settings = Settings()
    quantize: Precision | None = None  # written beside the format as it is
    opset: int | None = None  # version of the ONNX operators; None: the exporter's default
    data: DataSource | None = None  # what int8 is calibrated on, and accuracies are measured on
    pack: bool = True  # safetensors: tensors of many zeros as a bitmap and values

    def __post_init__(self) -> None:
        if not self.formats:
            raise InputError("no format to export to", hint="--onnx, --pt2 or --safetensors")
        if self.quantize is not None:
            _check_choice("--quantize", self.quantize, get_args(Precision))
        other = next((f"--{each}" for each in self.formats if each != "onnx"), None)
        if self.quantize == "int8" and other is not None:
            raise InputError("--quantize int8 is for ONNX", hint=f"leave out {other}, or --quantize fp16")
        if self.quantize == "int8" and self.data is None:
            raise InputError(
                "--quantize int8 learns from training samples how large activations get, and there are none",
                hint="add --data",
            )
        if self.quantize == "bf16" and "onnx" in self.formats:
            raise InputError(
                "--quantize bf16 is not for ONNX: ONNX Runtime cannot compute it on a CPU",
                hint="--quantize fp16, or --pt2 or --safetensors",
            )
        if not self.pack and "safetensors" not in self.formats:
            raise InputError("--no-pack is about --safetensors, which is not written", hint="add --safetensors")
        if self.opset is not None and "onnx" not in self.formats:
            raise InputError("--opset is a version of ONNX, which is not written", hint="add --onnx")
        if self.opset is not None:
            _check_at_least_one("--opset", self.opset)


def _check_at_least_one(flag: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{flag} must be at least 1, got {value}")


def _check_fractions(ratio_of: tuple[tuple[str, float], ...]) -> None:
    for glob, fraction in ratio_of:
        if not 0 <= fraction < 1:
            raise InputError(
                f"--ratio-of {glob}={fraction:g}: the fraction must be at least 0 and below 1",
                hint="the fraction of its units that goes; 0 leaves the layer whole",
            )
    globs = [glob for glob, _ in ratio_of]
    if len(set(globs)) < len(globs):
        twice = next(glob for glob in globs if globs.count(glob) > 1)
        raise InputError(f"--ratio-of {twice} is given twice", hint="leave one")


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{flag} {value!r} is unknown", hint=" or ".join(choices))
