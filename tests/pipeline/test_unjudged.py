"""Data that no accuracy can be measured on: targets that are no classes, models that give no class scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compress

Invoke = Callable[..., Any]
CODE = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
"""
MODEL = ("net.pt", "--arch", "net.py:build", "--input-shape", "6")


@pytest.fixture(autouse=True)
def _folder(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE)
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1)).state_dict(), "net.pt")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 6)).astype(np.float32)
    for name, targets in (("real", x.sum(1) + 0.5), ("yes", (x.sum(1) > 0).astype(np.int64))):
        np.savez(f"{name}.npz", x_train=x[:200], y_train=targets[:200], x_test=x[200:], y_test=targets[200:])


@pytest.mark.parametrize(
    ("data", "reason"), [("real", "targets are not whole numbers"), ("yes", "output of shape (2, 1)")]
)
def test_layers_are_refitted_and_no_accuracy_is_reported(data: str, reason: str, invoke: Invoke) -> None:
    done = invoke("prune", *MODEL, "--ratio", ".5", "--data", f"npz:{data}.npz", "-o", "small")
    assert done.code == 0, done.err
    assert "warning: no accuracy is reported: " in done.err and reason in done.err
    assert "compress eval" not in done.out and "accuracy" not in done.out
    report = json.loads(Path("small/report.json").read_text("utf-8"))
    assert report["before"]["accuracy"] is report["after"]["accuracy"] is None
    assert reason in report["warnings"][0] and report["data"]["calibration"] == 200
    assert invoke("prune", *MODEL, "--ratio", ".5", "-o", "cut").code == 0
    x = torch.from_numpy(np.load("real.npz")["x_test"])
    whole = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
    whole.load_state_dict(torch.load("net.pt"))
    with torch.no_grad():
        small, cut = (float((compress.load(name)(x) - whole(x)).square().mean()) for name in ("small", "cut"))
    assert small < 0.5 * cut


def test_what_is_exported_is_not_judged_either(invoke: Invoke) -> None:
    done = invoke("export", *MODEL, "--safetensors", "--data", "npz:real.npz", "-o", "out")
    assert done.code == 0 and "accuracy" not in done.out, done.err


@pytest.mark.parametrize(
    "words",
    [
        ("prune", *MODEL, "--epochs", "1"),
        ("prune", *MODEL, "--method", "taylor"),
        ("finetune", *MODEL),
        ("eval", *MODEL),
        ("check", *MODEL, "--limit", "min_accuracy=50 %"),
    ],
)
@pytest.mark.parametrize("data", ["real", "yes"])
def test_what_needs_classes_is_refused(words: tuple[str, ...], data: str, invoke: Invoke) -> None:
    done = invoke(*words, "--data", f"npz:{data}.npz")
    assert done.code in (2, 3) and "internal" not in done.err
    assert ("class" in done.err) and not Path("compressed").exists()
    assert "Slicing" not in done.err


def test_a_model_of_more_classes_than_the_data(invoke: Invoke) -> None:
    code = Path("net.py").read_text().replace("(12, 1)", "(12, CLASSES)")
    Path("net.py").write_text(f"CLASSES = 5\n{code}")
    torch.save(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).state_dict(), "net.pt")
    done = invoke("eval", *MODEL, "--data", "npz:yes.npz")
    assert done.code == 0 and "warning: the model tells 5 classes apart, the data has 2" in done.err
