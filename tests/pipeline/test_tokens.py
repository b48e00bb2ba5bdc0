"""A small language model from the command line: token numbers in, words out, to a bundle and to ONNX and .pt2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import compress
from compress.checkpoint.bundle import read_metadata

FACTORY = '''
import torch
from torch import nn


class Language(nn.Module):
    """Which word comes next: embedding, one transformer layer that looks back, head."""

    def __init__(self, vocabulary=50, width=16, length=32):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens, keep=None):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        hidden = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        x = self.block(x, src_mask=hidden)
        if keep is not None:
            x = x * keep.unsqueeze(-1)
        return self.head(self.norm(x))


build = Language
'''
ARCH = ("--arch", "nets.py:build")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FACTORY)
    made: dict[str, Any] = {}
    exec(FACTORY, made)
    torch.manual_seed(0)
    net: torch.nn.Module = made["build"]().eval()
    torch.save(net.state_dict(), "net.pt")
    return net


def test_pruned_exported_and_run_again(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    done = invoke("prune", "net.pt", *ARCH, "--input-shape", "16:int64<50", "--ratio", "0.5", "--json", "-o", "small")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["verification"]["slice"] < 1e-9 and report["verification"]["reload"] < 1e-5
    small = compress.load("small")
    weights = small.state_dict()
    assert weights["words.weight"].shape == (50, 8) and weights["head.weight"].shape == (50, 8)
    assert weights["block.linear1.weight"].shape == (16, 8)
    tokens = torch.randint(50, (5, 16), generator=torch.Generator().manual_seed(3))
    expected = small(tokens)
    assert expected.shape == (5, 16, 50)

    done = invoke("export", "small", "--onnx", "--pt2", "--json")
    assert done.code == 0, done.err
    assert all(artifact["error"] < 1e-5 for artifact in json.loads(done.out)["artifacts"])
    session = onnxruntime.InferenceSession("small/model.onnx", providers=["CPUExecutionProvider"])
    (read,) = session.get_inputs()
    assert (read.type, read.shape) == ("tensor(int64)", ["batch", 16])
    (found,) = session.run(None, {read.name: tokens.numpy()})
    assert torch.allclose(torch.as_tensor(found), expected, atol=1e-5)
    again = torch.export.load("small/model.pt2").module()
    assert torch.allclose(again(tokens), expected, atol=1e-5)


def test_a_bundle_knows_what_it_reads(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    done = invoke("prune", "net.pt", *ARCH, "--input-shape", "16:int64<50", "-o", "small")
    assert done.code == 0, done.err
    assert read_metadata("small")["inputs"] == [{"shape": [16], "dtype": "int64", "below": 50}]
    assert 'input_types = [\n    "int64<50",\n]' in Path("small", "recipe.toml").read_text()
    shown = json.loads(invoke("inspect", "small", "--json").out)
    assert (shown["input_shapes"], shown["input_types"]) == ([[16]], ["int64<50"])
    assert "16 int64<50" in invoke("inspect", "small").out
    shape = ("--input-shape", "16:int64")
    done = invoke("measure", "net.pt", *ARCH, *shape, "--against", "small", "--runs", "2", "--warmup", "0")
    assert done.code == 0, done.err


def test_an_exported_program_knows_what_it_reads(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    example = torch.randint(50, (2, 16))
    torch.export.save(torch.export.export(model, (example,)), "net.pt2")
    shown = json.loads(invoke("inspect", "net.pt2", "--json").out)
    assert (shown["input_shapes"], shown["input_types"]) == ([[16]], ["int64"])


def test_two_inputs_of_two_types(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    inputs = ("--input-shape", "16:int64", "--input-shape", "16:bool")
    done = invoke("prune", "net.pt", *ARCH, *inputs, "-o", "small")
    assert done.code == 0, done.err
    recorded = read_metadata("small")["inputs"]
    assert recorded == [{"shape": [16], "dtype": "int64"}, {"shape": [16], "dtype": "bool"}]
    assert (
        compress.load("small")(torch.zeros(3, 16, dtype=torch.int64), torch.ones(3, 16, dtype=torch.bool))
        .isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input-shape", "16"), "--input-shape 16:int64"),  # an embedding looks up nothing by floats
        (("--input-shape", "16:int64<5000"), "cannot take inputs of 16 (int64<5000)"),  # words that it does not have
        (("--input-shape", "16:int64", "--data", "digits"), "the model reads int64, data feeds float32"),
    ],
)
def test_wrong_inputs(model: torch.nn.Module, invoke: Callable[..., Any], words: tuple[str, ...], message: str) -> None:
    with torch.random.fork_rng():
        done = invoke("prune", "net.pt", *ARCH, *words, "-o", "small")
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_words_for_a_model_whose_input_nobody_named(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    x, y = np.zeros((6, 16), np.int64), np.arange(6) % 2
    np.savez("words.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    done = invoke("prune", "net.pt", *ARCH, "--data", "npz:words.npz", "-o", "small")
    assert done.code == 2 and "try: --input-shape 16:int64 where it reads numbers of words" in done.err


def test_words_as_data(model: torch.nn.Module, invoke: Callable[..., Any]) -> None:
    """Token numbers of an archive stay integers; floats are none."""
    module = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Flatten(), torch.nn.Linear(48, 16))
    module = torch.nn.Sequential(module, torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    drawn = torch.randint(50, (90, 6), generator=torch.Generator().manual_seed(0))
    torch.export.save(torch.export.export(module, (drawn[:2],)), "words.pt2")
    labels = module(drawn).argmax(1)
    parts = {"x_train": drawn[:60], "y_train": labels[:60], "x_test": drawn[60:], "y_test": labels[60:]}
    np.savez("words.npz", **{name: each.numpy() for name, each in parts.items()})
    done = invoke("prune", "words.pt2", "--data", "npz:words.npz", "--ratio", "0.3", "--json", "-o", "small")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["before"]["accuracy"]["correct"] == 30
    assert any("error after refit / before" in note for note in report["method"]["notes"].values())
    np.savez("words.npz", **{name: each.float().numpy() for name, each in parts.items()})
    done = invoke("prune", "words.pt2", "--data", "npz:words.npz", "-o", "small")
    assert done.code == 2 and "the model reads int64, data feeds float32" in done.err
