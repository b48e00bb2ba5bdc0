"""Reports side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.evaluate import Accuracy
from compress.measure import Latency
from compress.report import DataUsed, InputFile, Measures, Method, build_report, compare

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "comparison.schema.json").read_text("utf-8"))
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a report of a model halved in its parameters, with other numbers where they are given."""

    def made(name: str, *, digest: str = "0", right: int = 90, runtime: str = "torch", **after: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        sizes = {"macs": 1000, "files": {"model.safetensors": 2000}, **after}
        report = build_report(
            command=(),
            seed=0,
            device="cpu",
            input=InputFile(f"models/{digest}.pt", digest * 64, 4000, "state dict", "mlp:4-8-2"),
            method=Method(name),
            data=DataUsed("digits", test=100),
            before=Measures(1000, macs=2000, files={"0.pt": 4000}, latency=Latency(0.002, 0.003, 9, 1, 1, runtime)),
            after=Measures(
                500,
                accuracy=Accuracy(right, 100, right / 100, 0.8, 0.95, ()),
                latency=Latency(0.001, 0.002, 9, 1, 1, runtime),
                **sizes,
            ),
            speedup=2.5,
        )
        (folder / "report.json").write_text(json.dumps(report))
        return folder

    return made


def test_ratios_to_the_common_original(write: Write) -> None:
    found = compare.document([write("a"), write("b", macs=500) / "report.json"])
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found)))
    whole, first, second = found["rows"]
    assert (found["reference"], whole["name"], whole["params"], whole["accuracy"]) == (
        "original",
        "original",
        1000,
        None,
    )
    assert first["ratios"] == {"params": 0.5, "macs": 0.5, "bytes": 0.5, "latency": 0.4}  # timed in turns: 1 / 2.5
    assert second["ratios"]["macs"] == 0.25 and found["warnings"] == []
    assert compare.rows(found)[1][1:] == (
        *("0.pt", "a", "500 (50.0 %)", "1.00 k (50.0 %)", "2.00 kB (50.0 %)"),
        *("90.00 % (80.0 to 95.0)", "1.00 ms (40.0 %)"),
    )


def test_of_an_onnx_model_an_onnx_model_is_compared(write: Write) -> None:
    place = write("a", files={"model.safetensors": 2000, "model.onnx": 1000}) / "report.json"
    report = json.loads(place.read_text())
    report["before"]["files"] = {"0.onnx": 4000}
    place.write_text(json.dumps(report))
    assert compare.document([place])["rows"][1]["ratios"]["bytes"] == 0.25


def test_ratios_to_the_first_of_different_models(write: Write) -> None:
    found = compare.document([write("a"), write("b", digest="1", files={"model.safetensors": 1000})])
    first, second = found["rows"]
    assert found["reference"] == "first" and first["ratios"] == dict.fromkeys(first["ratios"], 1.0)
    assert second["ratios"] == {"params": 1.0, "macs": 1.0, "bytes": 0.5, "latency": 1.0}
    (warning,) = found["warnings"]
    assert "different models (0.pt, 1.pt)" in warning


def test_what_was_not_measured_alike_is_told(write: Write) -> None:
    other = write("b", runtime="onnxruntime")
    report = json.loads((other / "report.json").read_text())
    report["data"]["spec"], report["after"]["accuracy"]["count"] = "npz:x.npz", 50
    (other / "report.json").write_text(json.dumps(report))
    warnings = compare.document([write("a"), other])["warnings"]
    assert warnings == [
        "accuracies cannot be compared: they are of 100 samples of digits and 50 samples of npz:x.npz",
        "latencies cannot be compared: they are of onnxruntime, batch 1, 1 thread and torch, batch 1, 1 thread",
    ]


def test_csv_has_plain_numbers(write: Write) -> None:
    lines = list(csv.DictReader(io.StringIO(compare.table_csv(compare.document([write("a, b")])))))
    assert [line["name"] for line in lines] == ["original", str(lines[1]["name"])] and "a, b" in lines[1]["name"]
    assert (lines[1]["bytes"], lines[1]["accuracy"], lines[1]["latency_ratio"]) == ("2000", "0.9", "0.4")
    assert (lines[0]["accuracy"], lines[0]["latency_p50"]) == ("", "0.002")


def test_the_front_is_drawn(write: Write) -> None:
    found = compare.document([write("a", macs=100, right=80), write("b", macs=200, right=90), write("c", right=85)])
    drawn = compare.figure(found, "macs", "accuracy")
    assert [(s.label, list(s.x), list(s.names)) for s in drawn.series] == [
        ("none better in both", [100, 200], ["a", "b"]),
        ("others", [1000], ["c"]),  # the original's accuracy is not known
    ]
    assert compare.figure(found, "params", "latency").series[0].names == ["a", "b", "c"]
    with pytest.raises(InputError, match="--x and --y are both macs"):
        compare.figure(found, "macs", "macs")
    with pytest.raises(InputError, match="no report has both macs and accuracy"):
        compare.figure(compare.document([write("d", macs=None)]), "macs", "accuracy")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(costs: list[tuple[float, float]]) -> None:
    kept = compare.front(costs)
    for i, (x, y) in enumerate(costs):
        better = [c for c in costs if c != (x, y) and c[0] <= x and c[1] <= y]
        assert (i in kept) == (not better)
    assert [costs[i][0] for i in kept] == sorted(costs[i][0] for i in kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ('{"schema": "compress.plan/1"}', "has the schema 'compress.plan/1'"),
        ('{"schema": "compress.report/1"}', "it lacks input"),
        ('{"schema": "compress.report/1", "input": 1, "method": {}, "before": {}, "after": {}, "data": null,'
         ' "speedup": null}', "it lacks input.path"),
    ],
)  # fmt: skip
def test_what_is_no_report(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        compare.document([file])
    with pytest.raises(InputError, match="cannot be read"):
        compare.document([tmp_path / "none"])
