"""What can be asked of `sensitivity` and `search`, as :mod:`compress.request` has it for the other commands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from compress.errors import InputError
from compress.request import DataSource, ModelSource, Settings
from compress.training import Running, Training

Objective = Literal["macs", "params", "bytes", "latency"]


@dataclass(frozen=True)
class Scope:
    """What of a model may go."""

    only: tuple[str, ...] = ()  # globs on layer names
    exclude: tuple[str, ...] = ()
    prune_outputs: bool = False
    allow_frozen: bool = False  # prune what requires no gradient, too


@dataclass(frozen=True)
class SensitivityRequest:
    """What does the accuracy bear, family by family?"""

    model: ModelSource
    data: DataSource
    output: Path
    method: str = "dependency"
    ratios: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the units of a family
    samples: int = 1000  # of the validation part, at most
    calibrate: bool = False  # refit the layers after every cut
    scope: Scope = Scope()
    force: bool = False
    settings: Settings = field(default_factory=Settings)
    command: tuple[str, ...] = ()  # as typed

    def __post_init__(self) -> None:
        _at_least_one("--samples", self.samples)
        if not self.ratios:
            raise InputError("--ratios is empty", hint="--ratios .1,.3,.5")
        for ratio in self.ratios:
            if not 0 < ratio < 1:
                raise InputError(f"--ratios must be between 0 and 1, got {ratio:g}", hint="--ratios .1,.3,.5")
        if len(set(self.ratios)) < len(self.ratios):
            raise InputError("--ratios names a share twice", hint="--ratios .1,.3,.5")


@dataclass(frozen=True)
class Floor:
    """The accuracy that must hold, on the validation part of the training samples."""

    kind: Literal["min-accuracy", "max-drop"]
    value: float  # an accuracy in (0, 1]; or points below that of the original: 0.5 from 98 % is 97.5 %

    def __post_init__(self) -> None:
        if self.kind == "min-accuracy" and not 0 < self.value <= 1:
            near = f"--min-accuracy {self.value / 100:g}" if 1 < self.value <= 100 else "--min-accuracy 0.98"
            raise InputError(f"--min-accuracy must be above 0 and at most 1, got {self.value:g}", hint=near)
        if self.kind == "max-drop" and not 0 <= self.value < 100:
            raise InputError(f"--max-drop must be from 0 to below 100, got {self.value:g}", hint="--max-drop 0.5")

    def accuracy(self, whole: float) -> float:
        """The lowest accuracy that is allowed, for an original of the given one."""
        return self.value if self.kind == "min-accuracy" else whole - self.value / 100


@dataclass(frozen=True)
class SearchRequest:
    """What is the smallest model that holds an accuracy?"""

    model: ModelSource
    data: DataSource
    output: Path
    floor: Floor
    objective: Objective = "macs"
    methods: tuple[str, ...] = ("dependency",)
    trials: int = 40  # of the study in all
    timeout: float | None = None  # seconds after which no trial begins
    storage: str | None = None  # a URL that Optuna takes; None: a file beside the output
    study: str = "search"
    sensitivity: Path | None = None  # a sensitivity.json to be led by
    samples: int = 2000  # of the validation part, at most
    scope: Scope = Scope()
    training: Training | None = None  # of the model that is found
    running: Running = field(default_factory=Running)
    force: bool = False
    settings: Settings = field(default_factory=Settings)
    command: tuple[str, ...] = ()  # as typed

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise InputError(f"--objective {self.objective!r} is unknown", hint=" or ".join(get_args(Objective)))
        _at_least_one("--trials", self.trials)
        _at_least_one("--samples", self.samples)
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise InputError(f"--timeout must be above 0 seconds, got {self.timeout:g}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            said = ",".join(self.methods)
            raise InputError(f"--methods {said!r}: each method once", hint="--methods dependency,taylor")


def _at_least_one(flag: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{flag} must be at least 1, got {value}")
