"""Pruning by standout, from files to files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import compress

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]
NAME = "standout-elsewhere"
DATA = ("--data", "digits")

BUILD = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10)
    )
"""


@pytest.fixture(autouse=True)
def site(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, with the method registered by another distribution."""
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[compress.retrain]\n{NAME} = compress_plugins.standout:Standout\n")
    monkeypatch.syspath_prepend(str(info.parent))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def report_of(bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(bundle, "report.json").read_text("utf-8"))
    return found


@pytest.fixture
def convolutional() -> tuple[str, ...]:
    """The words that name a network whose convolution gets no gate."""
    Path("net.py").write_text(BUILD)
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10))
    torch.save(nn.Sequential(*layers).state_dict(), "net.pt")
    return ("net.pt", "--arch", "net.py:build", "--input-shape", "1,8,8")


def test_from_a_checkpoint_to_onnx(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--nodes", "20", *DATA, "--epochs", "8", "--lr", "0.05")
    done = invoke("retrain", *words, "-o", "small")
    assert done.code == 0, done.err
    assert "Pruned after epoch 1: 200 of 400 units left" in done.err
    report = report_of("small")
    assert report["after"]["params"] == 65 * 20 + 21 * 20 + 21 * 10 and report["before"]["params"] == 50_610
    assert report["verification"]["slice"] < 1e-9 and report["after"]["accuracy"]["accuracy"] > 0.5
    assert [entry["kept units"] for entry in report["history"]] == [400, 200, 100, 38 + 20, *[40] * 5]
    assert [f["file"] for f in report["figures"]] == ["figures/standout-loss.svg", "figures/standout-accuracy.svg"]
    assert all(Path("small", f["file"]).is_file() for f in report["figures"])
    model = compress.load("small")
    assert {n: tuple(t.shape) for n, t in model.state_dict().items() if "standout" in n} == {
        "1.standout_shift": (20,), "3.standout_shift": (20,),
    }  # fmt: skip
    exported = invoke("export", "small", "--onnx")
    assert exported.code == 0, exported.err
    graph = onnx.load("small/model.onnx").graph
    assert Counter(n.op_type for n in graph.node) == {"Gemm": 3, "Relu": 2, "Mul": 4, "Add": 2, "Sigmoid": 2}


def test_a_ratio_is_that_of_the_layers_with_gates(invoke: Invoke, convolutional: tuple[str, ...]) -> None:
    done = invoke("retrain", *convolutional, "--mode", NAME, "--ratio", "0.75", *DATA, "--epochs", "4", "-o", "one")
    assert done.code == 0, done.err
    report = report_of("one")
    assert report["method"]["budget"]["reached"] == 0.75
    assert all("no better than a guess" in each for each in report["warnings"])  # after four epochs
    assert {g["name"]: g["after"] for g in report["groups"]} == {"0": 4, "3": 8}
    done = invoke(
        "retrain", *convolutional, "--mode", NAME, "--conv", "--ratio", "0.75", *DATA, "--epochs", "4", "-o", "two"
    )
    assert done.code == 0, done.err
    assert {g["name"]: g["after"] for g in report_of("two")["groups"]} == {"0": 1, "3": 8}


def test_gates_as_constants_tell_their_error(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--nodes", "60", "--fold", "constant", *DATA, "--epochs", "6")
    done = invoke("retrain", *words, "--loss", "bce", "--no-calibrate", "-o", "small")
    assert done.code == 0, done.err
    said = report_of("small")["method"]["notes"]["fold"]["warning"]
    assert "folded to their means: on 1,000 training samples the scores are off by" in said
    assert f"fold: {said}" in done.err.replace("\n", " ")
    assert not list(compress.load("small").named_buffers())


def test_as_zeros(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--granularity", "weight", *DATA, "--epochs", "2", "--only", "3")
    done = invoke("retrain", *words, "-o", "zeros")
    assert done.code == 0, done.err
    assert {g["name"]: g["after"] for g in report_of("zeros")["groups"]} == {"1": 300, "3": 50}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--nodes", "300"), 2, "--nodes 300: no layer with a gate has more units: 1 has 300, 3 has 100"),
        (("--nodes", "0"), 2, "--nodes: a layer keeps one unit at least, got 0"),
        (("--nodes", "9", "--params", "0.5"), 2, "--nodes and a budget both say"),
        (("--period", "25"), 2, "25 epochs are needed to prune once with a period of 25, not 2"),
        (("--gamma", "2"), 2, "--gamma: must be from 0.01 to 1, got 2"),
        (("--params", "5"), 3, "cannot be met"),
        (("--loss", "bce", "--distill", "logits"), 2, "--distill logits: with --loss bce"),
    ],
)
def test_what_is_refused(invoke: Invoke, words: tuple[str, ...], code: int, said: str) -> None:
    done = invoke("retrain", str(MLP), "--mode", NAME, *DATA, "--epochs", "2", *words, "-o", "refused")
    assert done.code == code and said in done.err.replace("\n", " "), done.err
    assert "Traceback" not in done.err and not Path("refused").exists()


def test_nothing_to_gate(invoke: Invoke) -> None:
    model = ROOT / "sample_models" / "digits_resnet.safetensors"
    arch = f"{ROOT / 'sample_models' / 'architectures.py'}:residual_cnn"
    done = invoke("retrain", str(model), "--arch", arch, "--mode", NAME, *DATA, "--epochs", "2")
    assert done.code == 3 and "nowhere to put a gate" in done.err and "--conv" in done.err
