"""What `compress check` can be asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from compress.errors import InputError
from compress.gate.config import Gate
from compress.gate.facts import Facts
from compress.gate.judge import Judged
from compress.request import DataSource, ModelSource, Settings

CHECK = "compress.check/1"
Where = Literal["auto", "onnxruntime", "torch"]


@dataclass(frozen=True)
class CheckRequest:
    """Does this model meet its limits?

    Attributes:
        model: A bundle, a model, or a report.json, of which nothing is measured.
        gate: The limits; its baseline is what was said last.
        against: The original; None: the file that the bundle's report names, if it is there unchanged.
        data: What accuracy is measured on now; None: what the report says counts.
        update: Write the baseline, with which nothing is compared then.
        runtime: In which latency is measured; "auto": ONNX Runtime where the model can be expressed in it.
        runs: Timed runs, at least.
    """

    model: ModelSource
    gate: Gate
    against: ModelSource | None = None
    data: DataSource | None = None
    update: bool = False
    runtime: Where = "auto"
    runs: int = 50
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Where):
            raise InputError(f"--runtime {self.runtime!r} is unknown", " or ".join(get_args(Where)))
        if self.runs < 1:
            raise InputError(f"--runs must be at least 1, got {self.runs}")
        if self.update and self.gate.baseline is None:
            raise InputError("--update-baseline does not know which file", "--baseline FILE.json")
        if not self.gate.limits and not self.update:
            raise InputError(
                f"there is nothing to check: {self.gate.source} sets no limit",
                '--limit max_bytes=5MB, or max_bytes = "5MB" under [tool.compress.check] in pyproject.toml',
            )
        if self.reported and (self.data or self.against):
            raise InputError(
                f"{self.model.path} is a report, of which nothing is measured", "check the bundle that it lies in"
            )

    @property
    def reported(self) -> bool:
        """Whether a report alone is checked."""
        return self.model.path.suffix == ".json"


@dataclass(frozen=True)
class Checked:
    """Every limit and what became of it; ``updated`` where the baseline was written."""

    gate: Gate
    model: Facts
    judged: tuple[Judged, ...]
    updated: bool = False
    original: str | None = None  # the file that limits compare with, where one does

    @property
    def failed(self) -> tuple[str, ...]:
        """The limits that make the gate fail."""
        return tuple(each.limit.name for each in self.judged if each.status == "failed")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, in the form of docs/check.schema.json."""
        return {
            "schema": CHECK,
            "passed": not self.failed,
            "model": self.model.model,
            "config": self.gate.source,
            "baseline": None if self.gate.baseline is None else str(self.gate.baseline),
            "baseline_updated": self.updated,
            "original": self.original,
            "accuracy_rule": self.gate.accuracy_rule,
            "limits": [_plain(each) for each in self.judged],
        }


def _plain(each: Judged) -> Mapping[str, Any]:
    return {
        "name": each.limit.name,
        "metric": each.limit.key.metric,
        "kind": each.limit.key.kind,
        "status": each.status,
        "level": each.limit.level,
        "limit": each.limit.allowed,
        "value": each.value,
        "low": each.low,
        "high": each.high,
        "against": each.against,
        "found": each.found,
        "reference": each.reference,
        "source": each.source,
        "note": each.note,
    }
