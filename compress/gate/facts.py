"""What is known of a model when its limits are judged, and the baseline, which is that as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.errors import InputError

BASELINE = "compress.baseline/1"
NOW, REPORTED = "now", "report"  # where a number comes from: measured or counted now, or what a report says


@dataclass(frozen=True)
class Scored:
    """An accuracy with its 95 % interval, the data it is of, and where it comes from.

    ``right`` says of every sample whether it was put in the right class, where that is known.
    """

    correct: int
    count: int
    accuracy: float
    low: float
    high: float
    data: str
    source: str = NOW
    right: tuple[bool, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Timed:
    """Seconds per call, median, and how often that of the original in the same run (None: that was not timed)."""

    p50: float
    ratio: float | None
    runtime: str
    batch: int
    threads: int
    source: str = NOW


@dataclass(frozen=True)
class Facts:
    """One model; None is what nobody counted or measured.

    Attributes:
        bytes: Of its file on disk; of a bundle's ``model.safetensors``, or ``model.onnx`` where it is made of one.
        params: Parameters that it holds.
        macs: Multiply-accumulates for one sample.
        source: Where the counts come from.
        arch: What ``--arch`` has to say before it can be built, where that is somebody's code.
    """

    model: str
    bytes: int | None = None
    params: int | None = None
    macs: int | None = None
    accuracy: Scored | None = None
    latency: Timed | None = None
    source: str = NOW
    arch: str = ""


def of_report(report: Mapping[str, Any], side: str, model: str) -> Facts:
    """What report.json says of one side, "before" or "after"."""
    from compress.report.table import counterpart  # here, as `compress check --help` comes through this file too

    measures, data = report[side], report["data"]
    before, after = report["before"]["files"], report["after"]["files"]
    size = after.get(counterpart(before, after)) if side == "after" else sum(before.values()) or None
    return Facts(
        model,
        size,
        measures["params"],
        measures["macs"],
        scored(measures["accuracy"], "unknown data" if data is None else data["spec"]),
        _timed(measures["latency"], report["speedup"] if side == "after" else None),
        REPORTED,
        _code(str(report["input"]["architecture"])) if side == "before" else "",
    )


def scored(accuracy: Mapping[str, Any] | None, data: str) -> Scored | None:
    """The accuracy in a report."""
    if accuracy is None:
        return None
    return Scored(**{name: accuracy[name] for name in ("correct", "count", "accuracy", "low", "high")}, data=data,
                  source=REPORTED)  # fmt: skip


def _timed(latency: Mapping[str, Any] | None, speedup: float | None) -> Timed | None:
    if latency is None:
        return None
    return Timed(
        latency["p50"],
        1 / speedup if speedup else None,
        latency.get("runtime", "torch"),  # reports of earlier versions do not say
        latency["batch"],
        latency["threads"],
        REPORTED,
    )


def baseline_text(facts: Facts) -> str:
    """The baseline as a file: the same facts give the same bytes."""
    plain = _without(asdict(facts), "source", "arch")
    for part in ("accuracy", "latency"):
        if plain[part] is not None:
            plain[part] = _without(plain[part], "source", "right")
    return json.dumps({"schema": BASELINE, **plain}, indent=2, allow_nan=False) + "\n"


def _code(architecture: str) -> str:
    """What `--arch` has to say before the model can be built: "file.py:factory"; "" where nobody's code is needed."""
    builder, colon, _ = architecture.partition(":")
    return architecture if colon and builder not in ("torchvision", "timm", "mlp", "transformers") else ""


def _without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def read_baseline(path: Path) -> Facts:
    """The baseline in a file.

    Raises:
        InputError: It is not there, damaged, or something else.
    """
    update = "compress check --update-baseline writes it"
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"the baseline {path} cannot be read: {error.strerror}", update) from error
    except ValueError as error:
        raise InputError(f"the baseline {path} is damaged: {error}", update) from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != BASELINE:
        raise InputError(f"{path} is no baseline: its schema is {schema!r}, not {BASELINE!r}", update)
    try:
        return _read(found)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the baseline {path} is damaged: {error}", update) from error


def _read(found: Mapping[str, Any]) -> Facts:
    accuracy, latency = found["accuracy"], found["latency"]
    counts = {name: found[name] for name in ("bytes", "params", "macs")}
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ValueError(f"{name} is {count!r}")
    return Facts(
        str(found["model"]),
        **counts,
        accuracy=None if accuracy is None else Scored(**_numbers(accuracy)),
        latency=None if latency is None else Timed(**_numbers(latency)),
    )


def _numbers(part: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in part.items():
        if name not in ("data", "runtime") and value is not None and not isinstance(value, (int, float)):
            raise ValueError(f"{name} is {value!r}")
    return dict(part)
