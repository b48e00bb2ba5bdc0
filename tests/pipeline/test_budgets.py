"""`compress prune` within budgets: sizes that are met, told, and refused; and globs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
RESNET = SAMPLES / "digits_resnet.safetensors"
ARCH = f"{SAMPLES}/architectures.py:residual_cnn"

pytestmark = pytest.mark.usefixtures("fast")


@pytest.mark.parametrize(
    ("words", "side", "bound"),
    [
        (("--macs", "0.5"), "macs", 0.5),
        (("--params", "50k"), "params", 50_000),
        (("--macs", "0.5", "--round-to", "8", "--allocation", "block"), "macs", 0.5),
        (("--params", "0.3", "--steps", "2", "--ratio-of", "*.conv1=0.25"), "params", 0.3),
    ],
)
def test_budgets_are_kept(
    words: tuple[str, ...], side: str, bound: float, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    done = invoke("prune", str(RESNET), "--arch", ARCH, *words, "-o", str(tmp_path / "b"), "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    limit = bound * report["before"][side] if bound < 1 else bound
    assert 0.98 * limit < report["after"][side] <= limit
    budget = report["method"]["budget"]
    assert (budget["target"], budget["reached"]) == (pytest.approx(limit), report["after"][side])
    assert budget["limited"] is False
    if "--round-to" in words:
        assert all(layer["after"] % 8 == 0 for layer in report["layers"] if layer["after"] < layer["before"])


@pytest.mark.parametrize("size", ["200kB", "0.4"])
def test_budgets_of_bytes_are_those_of_the_file(size: str, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    bundle = tmp_path / "b"
    done = invoke("prune", str(RESNET), "--arch", ARCH, "--bytes", size, "-o", str(bundle), "--json")
    assert done.code == 0, done.err
    budget, written = json.loads(done.out)["method"]["budget"], (bundle / "model.safetensors").stat().st_size
    assert budget["reached"] == written
    assert 0.98 * budget["target"] < written <= budget["target"]
    assert budget["target"] == 200_000 or 0.4 * 680_000 < budget["target"] < 0.42 * 690_000  # of 169,834 parameters


def test_a_budget_that_widths_come_no_nearer_to(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    bundle = tmp_path / "b"
    done = invoke("prune", str(SAMPLES / "digits_mlp.pt"), "--ratio", "0.3", "--round-to", "128", "-o", str(bundle))
    assert done.code == 0, done.err
    assert "1 of 2 groups keep their width, as no smaller one is a multiple of 128: 3" in done.err
    assert "--ratio: 11.0 % of the units removed, 30 % asked for: the nearest" in done.err
    report = json.loads((bundle / "report.json").read_text("utf-8"))
    assert report["method"]["budget"]["limited"] is True
    assert report["method"]["notes"]["3"] == {"keeps its width": "no smaller one is a multiple of 128"}
    assert "the allowed widths come no nearer" in (bundle / "report.md").read_text("utf-8")


@pytest.mark.parametrize("words", [("--steps", "2"), ("--allocation", "global"), ("--ratio-of", "1=0.5")])
def test_methods_that_decide_themselves_take_no_orders(words: tuple[str, ...], invoke: Callable[..., Any]) -> None:
    done = invoke("prune", str(SAMPLES / "digits_mlp.pt"), "--method", "tetris", *words)
    assert done.code == 2
    assert f"{words[0]}: tetris decides by itself how much of each layer goes" in done.err


def test_only_and_exclude(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", str(RESNET), "--arch", ARCH, "--only", "blocks.*", "--exclude", "*conv2", "--json")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    shrunk = {g["name"] for g in json.loads(done.out)["groups"] if g["after"] < g["before"]}
    assert shrunk == {f"blocks.{i}.conv1" for i in range(4)}
