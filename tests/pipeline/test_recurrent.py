"""An LSTM classifier from the command line: from a state dict or an export to a bundle, and to ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import compress

FACTORY = '''
from torch import nn


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1, 2))[0][:, -1])


build = Rows
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FACTORY)
    made: dict[str, Any] = {}
    exec(FACTORY, made)
    net: torch.nn.Module = made["build"]().eval()
    torch.save(net.state_dict(), "net.pt")
    return net


def test_state_dict_to_bundle_to_onnx(module: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    arch = ("--arch", "nets.py:build", "--input-shape", "1,8,8")
    done = invoke("prune", "net.pt", *arch, "--ratio", "0.5", "--keep-module", "--json", "-o", "small")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["verification"]["slice"] < 1e-9
    layers = {x["name"]: (x["kind"], x["before"], x["after"]) for x in report["layers"]}
    assert layers["lstm.weight_ih_l0"] == ("recurrent", 64, 32)
    assert layers["head"] == ("linear", 10, 10)
    weights = compress.load("small").state_dict()
    assert weights["lstm.weight_ih_l1"].shape == (32, 16)
    assert Path("small", "module.safetensors").exists()  # nn.LSTM itself, of half the hidden size
    done = invoke("export", "small", "--onnx", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["artifacts"][0]["error"] < 1e-5


def test_an_exported_lstm(module: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    batch = {0: torch.export.Dim("batch", min=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the list in which the layer holds its weights
        program = torch.export.export(module, (torch.randn(2, 1, 8, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, "net.pt2")
    done = invoke("prune", "net.pt2", "--ratio", "0.25", "-o", "small")
    assert done.code == 0, done.err
    small = compress.load("small")
    assert small.state_dict()["lstm.weight_hh_l0"].shape == (48, 12)
    assert small(torch.randn(3, 1, 8, 8)).shape == (3, 10)


def test_single_weights(module: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    arch = ("--arch", "nets.py:build", "--input-shape", "1,8,8")
    done = invoke("prune", "net.pt", *arch, "--method", "tetris", "--granularity", "weight", "-o", "small")
    assert done.code == 0, done.err
    assert (compress.load("small").state_dict()["lstm.weight_hh_l0"] == 0).any()
