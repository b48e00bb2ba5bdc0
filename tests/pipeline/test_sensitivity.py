"""`compress sensitivity`, from a file to a table, a page and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema  # type: ignore[import-untyped]
import pytest

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_model_whose_curves_are_plausible(invoke: Invoke) -> None:
    done = invoke("sensitivity", str(MLP), "--data", "digits", "--ratios", ".1,.5,.9")
    assert done.code == 0, done.err
    document = json.loads(Path("sensitivity/sensitivity.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs" / "sensitivity.schema.json").read_text()))
    assert [each["name"] for each in document["families"]] == ["1", "3"]
    assert document["accuracy"]["count"] == 144 and document["accuracy"]["accuracy"] == 1.0
    for each, units in zip(document["families"], (300, 100), strict=True):
        first, middle, last = each["points"]
        assert [p["removed"] for p in each["points"]] == [0.1 * units, 0.5 * units, 0.9 * units]
        assert first["accuracy"] > 0.95 and last["accuracy"] < 0.5 < middle["accuracy"] < 1
        assert f"{100 * middle['accuracy']:.2f}" in done.out
    assert "144 validation samples, 100.00 with nothing cut" in done.out and "not refitted" in done.out
    page = Path("sensitivity/sensitivity.md").read_text()
    assert "| 1 | 300 |" in page and "sensitivity.svg" in page
    assert ElementTree.parse("sensitivity/sensitivity.svg").getroot().tag.endswith("svg")


def test_a_refit_helps_and_the_same_command_gives_the_same_bytes(invoke: Invoke) -> None:
    words = ("sensitivity", str(MLP), "--data", "digits", "--ratios", ".5", "--only", "1", "--samples", "100")
    for name in ("one", "two"):
        assert invoke(*words, "--calibrate", "-o", name).code == 0
    assert invoke(*words, "-o", "plain").code == 0
    one, two, plain = (json.loads(Path(name, "sensitivity.json").read_text()) for name in ("one", "two", "plain"))
    assert {**one, "command": 0} == {**two, "command": 0} and one["calibrated"] and not plain["calibrated"]
    assert Path("one/sensitivity.svg").read_bytes() == Path("two/sensitivity.svg").read_bytes()
    assert [each["name"] for each in one["families"]] == ["1"] and one["accuracy"]["count"] == 100
    assert one["families"][0]["points"][0]["accuracy"] > plain["families"][0]["points"][0]["accuracy"]


def test_a_directory_of_others_is_left_alone(invoke: Invoke) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep")
    words = ("sensitivity", str(MLP), "--data", "digits", "--ratios", ".5", "--only", "1", "-o", "mine")
    done = invoke(*words)
    assert done.code == 2 and "is left alone" in done.err and "--force" in done.err
    assert [each.name for each in Path("mine").iterdir()] == ["notes.txt"]
    assert invoke(*words, "--force", "--quiet").out == "mine\n"
    assert sorted(each.name for each in Path("mine").iterdir()) == [
        *("notes.txt", "sensitivity.json", "sensitivity.md", "sensitivity.svg")
    ]
    assert invoke(*words).code == 0  # it holds an older result now


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "tetris"), "tetris decides by itself what goes"),
        (("--method", "nothing"), "no method 'nothing'"),
        (("--only", "9"), "no prunable layer matches '9'"),
    ],
)
def test_wrong_input(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = invoke("sensitivity", str(MLP), "--data", "digits", *words)
    assert done.code == 2 and message in done.err and not Path("sensitivity").exists()
