"""`compress measure` in ONNX Runtime, from the command line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.checkpoint import load_model
from compress.checkpoint.write import bundle_bytes
from compress.graph import trace
from compress.measure import latency_pair

MLP = Path(__file__).resolve().parents[2] / "sample_models" / "digits_mlp.pt"


def test_one_model_in_onnx_runtime(invoke: Callable[..., Any]) -> None:
    done = invoke("measure", str(MLP), "--runtime", "onnxruntime", "--runs", "2", "--batch-size", "3", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["runtime"], found["device"], found["batch_size"]) == ("onnxruntime", "cpu", 3)
    assert found["ratio"] is None and 0 < found["models"][0]["p50"] <= found["models"][0]["p90"]
    assert found["models"][0]["macs"] == 50200


def test_a_model_of_classes_is_timed_as_a_graph_beside_one(
    invoke: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the ratio would be another one than that of the report, which times two graphs."""
    network = trace(load_model(MLP).module, (torch.rand(2, 64),)).module
    (tmp_path / "model.safetensors").write_bytes(bundle_bytes(network, [{"shape": [64], "dtype": "float32"}], None, {}))
    kinds = []

    def pair(first: torch.nn.Module, second: torch.nn.Module, inputs: Any, **settings: Any) -> Any:
        kinds.append([isinstance(each, torch.fx.GraphModule) for each in (first, second)])
        return latency_pair(first, second, inputs, **{**settings, "min_seconds": 0})

    monkeypatch.setattr(importlib.import_module("compress.pipeline.measure"), "latency_pair", pair)
    for other, graph in ((tmp_path, True), (MLP, False)):
        assert invoke("measure", str(MLP), "--against", str(other), "--runs", "2").code == 0
        assert kinds.pop() == [graph, graph]


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
