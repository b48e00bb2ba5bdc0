from __future__ import annotations

import copy
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from compress.errors import CompressError, InputError
from compress.report import Measures, Report, build_report, read_report

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))


def check(report: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(report, allow_nan=False)))


def test_the_schema_is_one_and_names_every_field() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == {"schema", "tool", *(each.name for each in fields(Report))}
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) - {"best_epoch", "untrained_accuracy"}


def test_reports_of_before_the_new_fields_fit_it(old: dict[str, Any]) -> None:
    check(old)


def test_reports_fit_the_schema(least: dict[str, Any], full: dict[str, Any]) -> None:
    check(build_report(**least))
    check(build_report(**full))


def test_what_was_not_measured_is_null(least: dict[str, Any]) -> None:
    report = build_report(**least)
    assert report["schema"] == "compress.report/1"
    assert report["after"] == {
        "params": 420, "nonzero": None, "macs": None, "bytes": None, "files": {}, "accuracy": None, "latency": None,
        "nominal": None,
    }  # fmt: skip
    assert report["verification"] == {"slice": None, "reload": None, "onnx": None}
    assert (report["speedup"], report["data"], report["history"], report["gates"]) == (None, None, [], [])


def test_values(full: dict[str, Any]) -> None:
    report = build_report(**full)
    assert report["before"]["accuracy"] == {
        "correct": 95, "count": 100, "accuracy": 0.95, "low": 0.8882, "high": 0.9785, "confidence": 0.9,
        "confident_classes": 1, "per_class": [{"correct": 95, "count": 100, "confidence": 0.9}],
    }  # fmt: skip
    assert report["after"]["latency"] == {
        "p50": 0.002, "p90": 0.0025, "runs": 50, "batch": 8, "threads": 1, "runtime": "torch",
    }  # fmt: skip
    assert report["method"]["budget"] == {
        "kind": "ratio", "value": 0.5, "target": 0.5, "reached": 0.48, "limited": False, "counted": "units",
    }  # fmt: skip
    assert report["layers"][1] == {
        "name": "2", "kind": "Linear", "before": 2, "after": 2, "frozen": "output of the model",
    }  # fmt: skip
    assert report["method"]["notes"] == {"0": {"rounds": 3}}


def test_versions_are_added(least: dict[str, Any]) -> None:
    del least["libraries"]
    found = build_report(**least)["libraries"]
    assert {"python", "torch", "numpy"} <= set(found)


def test_numbers_of_numpy_are_plain_and_others_refused(least: dict[str, Any]) -> None:
    least["after"] = Measures(np.int64(420), files={"a": np.int32(3)})  # type: ignore[arg-type,dict-item]
    check(build_report(**least))
    with pytest.raises(CompressError, match=r"report\.speedup is nan"):
        build_report(**least, speedup=float("nan"))
    with pytest.raises(CompressError, match=r"report\.history\[0\]\.loss is inf"):
        build_report(**least, history=({"loss": float("inf")},))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "compress.report/2"},
        {"seed": "0"},
        {"speedup": 0},
        {"layers": [{"name": "0"}]},
        {"extra": 1},
    ],
)
def test_the_schema_refuses(least: dict[str, Any], change: dict[str, Any]) -> None:
    report = {**copy.deepcopy(build_report(**least)), **change}
    with pytest.raises(jsonschema.ValidationError):
        check(report)


def test_reading(least: dict[str, Any], tmp_path: Path) -> None:
    report = build_report(**least)
    file = tmp_path / "report.json"
    with pytest.raises(InputError, match="cannot be read"):
        read_report(tmp_path)
    file.write_text(json.dumps(report))
    assert read_report(tmp_path) == read_report(file) == report
    for text, message in (("{", "damaged"), ("[]", "schema None"), ('{"schema": "compress.report/9"}', "report/9")):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_report(file)
