"""The baseline as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from compress.errors import InputError
from compress.gate import Facts, Scored, Timed, baseline_text, read_baseline

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "baseline.schema.json").read_text("utf-8"))
FULL = Facts(
    "small", 1000, 500, 2000, Scored(95, 100, 0.95, 0.89, 0.98, "digits"), Timed(0.005, 0.4, "onnxruntime", 1, 1)
)


@pytest.mark.parametrize("facts", [FULL, Facts("m"), replace(FULL, latency=Timed(0.005, None, "torch", 1, 2))])
def test_what_is_written_is_read(facts: Facts, tmp_path: Path) -> None:
    text = baseline_text(facts)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    file = tmp_path / "b.json"
    file.write_text(text)
    assert read_baseline(file) == facts


def test_a_person_can_read_it() -> None:
    assert baseline_text(FULL).splitlines()[:4] == [
        "{", '  "schema": "compress.baseline/1",', '  "model": "small",', '  "bytes": 1000,'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ("[]", "is no baseline"),
        ('{"schema": "compress.report/1"}', "its schema is 'compress.report/1'"),
        ('{"schema": "compress.baseline/1"}', "is damaged: 'accuracy'"),
        (baseline_text(FULL).replace("1000", '"1000"'), "bytes is '1000'"),
        (baseline_text(FULL).replace("0.95,", '"much",'), "accuracy is 'much'"),
        (baseline_text(FULL).replace('"p50"', '"p5"'), "p5"),
    ],
)
def test_other_files_are_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_baseline(file)
    assert "--update-baseline" in caught.value.hint


def test_a_baseline_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_baseline(tmp_path / "b.json")
