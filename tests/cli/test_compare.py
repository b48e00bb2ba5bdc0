"""`compress compare`, as a user types it."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.evaluate import Accuracy
from compress.report import DataUsed, InputFile, Measures, Method, build_report

Call = Callable[..., Any]


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of one model: a and b in folders of that name, c of other data."""
    monkeypatch.chdir(tmp_path)
    for name, params, right, data in (("a", 500, 90, "digits"), ("b", 250, 80, "digits"), ("c", 100, 9, "npz:x")):
        report = build_report(
            command=(),
            seed=0,
            device="cpu",
            input=InputFile("model.pt", "0" * 64, 4000, "state dict", "mlp:4-8-2"),
            method=Method("dependency"),
            data=DataUsed(data, test=100),
            before=Measures(1000, macs=2000),
            after=Measures(params, macs=2 * params, accuracy=Accuracy(right, 100, right / 100, 0.05, 0.95, ())),
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))


@pytest.mark.usefixtures("reports")
def test_formats(run: Call) -> None:
    done = run("compare", "a", "b")
    assert done.code == 0 and done.err == ""
    assert [line.split()[0] for line in done.out.splitlines()] == ["model", "original", "a", "b"]
    assert "250 (25.0 %)" in done.out
    found = json.loads(run("compare", "a", "b", "--format", "json").out)
    assert found == json.loads(run("compare", "a", "b", "--json").out) and len(found["rows"]) == 3
    lines = list(csv.DictReader(io.StringIO(run("compare", "a", "b/report.json", "--format", "csv").out)))
    assert [line["name"] for line in lines] == ["original", "a", "b/report.json"]
    page = run("compare", "a", "b", "--format", "markdown").out.splitlines()
    assert {line.count("|") for line in page} == {9} and page[2].startswith("| original | model.pt |")
    assert run("compare", "a", "-q").out == "original\na\n"


@pytest.mark.usefixtures("reports")
def test_different_data_is_told(run: Call) -> None:
    done = run("compare", "a", "c")
    assert done.code == 0 and "warning: accuracies cannot be compared" in done.err


@pytest.mark.usefixtures("reports")
def test_a_picture(run: Call) -> None:
    assert run("compare", "a", "b", "--plot", "p.svg", "--x", "params").code == 0
    texts = {each.text for each in ElementTree.parse("p.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"parameters", "accuracy (%)", "a", "b", "none better in both"} <= texts
    assert run("compare", "a", "b", "--plot", "p.png").code == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "none"), "none cannot be read"),
        (("a", "--plot", "p.pdf"), "--plot p.pdf: pictures are SVG or PNG"),
        (("a", "--plot", "p.svg", "--x", "latency"), "no report has both latency and accuracy"),
        (("a", "--plot", "p.svg", "--x", "size"), "'size' is not one of"),
        ((), "missing argument"),
    ],
)
def test_what_is_refused(run: Call, words: tuple[str, ...], said: str) -> None:
    done = run("compare", *words)
    assert done.code == 2 and said in done.err and done.out == ""
    assert not Path("p.svg").exists()
