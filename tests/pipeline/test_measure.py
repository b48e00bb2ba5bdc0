"""`compress measure` in ONNX Runtime, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

MLP = Path(__file__).resolve().parents[2] / "sample_models" / "digits_mlp.pt"


def test_one_model_in_onnx_runtime(invoke: Callable[..., Any]) -> None:
    done = invoke("measure", str(MLP), "--runtime", "onnxruntime", "--runs", "2", "--batch-size", "3", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["runtime"], found["device"], found["batch_size"]) == ("onnxruntime", "cpu", 3)
    assert found["ratio"] is None and 0 < found["models"][0]["p50"] <= found["models"][0]["p90"]
    assert found["models"][0]["macs"] == 50200


FACTORY = """
import torch

class Bessel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.special.bessel_j0(self.layer(x))
"""


def test_what_onnx_lacks_is_named(invoke: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)
    torch.save(torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 4)}).state_dict(), "net.pt")
    words = ("measure", "net.pt", "--arch", "net.py:Bessel", "--input-shape", "4", "--runtime", "onnxruntime")
    done = invoke(*words)
    assert done.code == 3 and done.out == ""
    assert "bessel_j0" in done.err and "cannot be exported to ONNX" in done.err
