"""Sparse trainings from files to files: the bundle, the report, ONNX, and a training that was killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import compress

ROOT = Path(__file__).resolve().parents[2]
MLP = str(ROOT / "sample_models" / "digits_mlp.pt")
Invoke = Callable[..., Any]

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(3)
        )
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for branch in self.branches:
            x = x + branch(x)
        return self.head(x.mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def site(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, with the mode registered by another distribution."""
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compress.retrain]\nsparse = compress_plugins.diffsparse:DiffSparse\n")
    monkeypatch.syspath_prepend(str(info.parent))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def report_of(bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(bundle, "report.json").read_text("utf-8"))
    return found


def test_a_network_without_norms(invoke: Invoke) -> None:
    words = ("retrain", MLP, "--mode", "sparse", "--params", "0.3", "--data", "digits", "--epochs", "8")
    done = invoke(*words, "--no-calibrate", "-o", "small")
    assert done.code == 0, done.err
    report = report_of("small")
    assert 0.294 * 50_610 < report["after"]["params"] <= 0.3 * 50_610
    assert report["verification"]["slice"] < 1e-9 and report["after"]["accuracy"]["accuracy"] > 0.9
    notes = report["method"]["notes"].values()
    exact, ranked = (sum(n.get(key, 0) for n in notes) for key in ("zero by training", "closed by rank"))
    assert exact > ranked and f"{exact} exactly zero, {ranked} by rank" in done.err
    # Nothing is lost by the slice: what was trained is what is written
    trained = {e["validation accuracy"] for e in report["history"][6:]}
    assert report["after"]["accuracy"]["accuracy"] > max(trained) - 0.05
    assert {Path(p["file"]).name for p in report["figures"]} == {"scales.svg", "units-left.svg"}
    exported = invoke("export", "small", "--onnx")
    assert exported.code == 0, exported.err
    x = torch.rand(4, 64)
    session = onnxruntime.InferenceSession(Path("small/model.onnx").read_bytes())
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), compress.load("small")(x).detach(), rtol=1e-5, atol=1e-5)


def test_blocks_are_counted_in_the_network_that_came(invoke: Invoke) -> None:
    Path("net.py").write_text(NETWORK)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    torch.manual_seed(0)
    torch.save(scope["Net"]().state_dict(), "net.pt")
    words = ("net.pt", "--arch", "net.py:Net", "--mode", "sparse", "--on", "blocks", "--ratio", "0.34")
    done = invoke("retrain", *words, "--data", "digits", "--epochs", "3", "-o", "small")
    assert done.code == 0, done.err
    report, branch = report_of("small"), 6 * 6 * 9 * 64
    assert report["before"]["macs"] == 6 * 9 * 64 + 3 * branch + 60
    assert report["after"]["macs"] == report["before"]["macs"] - 2 * branch
    # A number behind the ReLU of the branch that stays: no layer could take it over
    assert report["after"]["params"] == report["before"]["params"] - 2 * (6 * 6 * 9 + 6 + 12) + 1
    assert compress.load("small")(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_mode_with_nothing_to_do_says_so(invoke: Invoke) -> None:
    words = ("retrain", MLP, "--mode", "sparse", "--data", "digits", "--epochs", "1")
    done = invoke(*words, "--on", "batchnorm", "-o", "small")
    assert done.code == 3 and "no units can be switched off by the scales of batch norms" in done.err
    done = invoke(*words, "--lam", "1e-6", "-o", "small")
    assert done.code == 3 and "sparse prunes nothing on this model" in done.err
