"""Every method at both granularities from a checkpoint to an ONNX file, and the matrix that says so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

UNITS_ALONE = {"activation", "dependency", "reconstruct"}


@pytest.fixture(scope="module")
def matrix() -> Any:
    return importlib.import_module("method_matrix")


@pytest.fixture(autouse=True)
def _fast(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["default"])


def test_every_method_works_or_says_why_not(matrix: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken, exported = matrix.spoken, []

    def some(words: list[str]) -> Any:  # an export is half of the time, and knows nothing of the method
        if words[0] == "export":
            exported.append(words)
        return (0, "") if words[0] == "export" and len(exported) > 2 else spoken(words)

    monkeypatch.setattr(matrix, "spoken", some)
    model = next(m for m in matrix.samples() if m.name == "digits_mlp")
    chosen = matrix.untrained()
    found = {(method, granularity): cell for method, granularity, [cell] in matrix.rows([model], chosen, tmp_path)}
    assert len(found) == 2 * len(chosen) >= 22
    refused = {key for key, cell in found.items() if cell.status == "refused"}
    # A network without batch norms has nothing for slimming to go by
    assert refused == {(m, "weight") for m in UNITS_ALONE} | {("slimming", "unit"), ("slimming", "weight")}
    assert {cell.status for key, cell in found.items() if key not in refused} == {"ok"}, found
    assert "no meaning for single weights" in found["dependency", "weight"].detail
    assert len(exported) == len(chosen) - 1
    assert "batch norms" in found["slimming", "unit"].detail
    assert all(float(cell.detail.removesuffix(" %")) > 90 for key, cell in found.items() if key not in refused), found


def test_what_goes_wrong_fails_the_matrix(
    matrix: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"magnitude": 4, "random": 3}

    def command(words: list[str]) -> int:
        print("error: it broke", file=sys.stderr)
        return answers[words[words.index("--method") + 1]]

    monkeypatch.setattr(matrix, "command", command)
    monkeypatch.setattr(sys, "argv", ["method_matrix.py", "--only", "digits_mlp", "--methods", "random"])
    assert matrix.main() == 1
    out = capsys.readouterr().out
    assert "| magnitude | unit | FAILED |" in out and "| random | weight | refused |" in out
    assert "exit code 4: it broke" in out and "- refused: random, unit, digits_mlp: it broke" in out


def test_a_model_is_a_name_and_words(matrix: Any) -> None:
    model = matrix.given("net=a.pt --arch nets.py:build --data npz:x.npz --mean .5")
    assert (model.name, model.file) == ("net", "a.pt")
    assert model.data == ("--data", "npz:x.npz", "--mean", ".5")
