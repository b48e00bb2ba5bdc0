"""What `compress prune` says on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_data_it_says_what_is_missing(invoke: Invoke) -> None:
    bare = invoke("prune", str(MLP), "--ratio", ".3", "-o", "bare")
    assert bare.code == 0 and "Without --data layers are not refitted" in bare.err
    given = invoke("prune", str(MLP), "--ratio", ".3", "--data", "digits", "-o", "given")
    assert given.code == 0 and "Without --data" not in given.err


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16"), (torch.float32, "")])
def test_a_file_of_16_bits_and_how_to_come_back_to_it(dtype: torch.dtype, name: str, invoke: Invoke) -> None:
    code = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(90, 80), nn.Linear(80, 9))
"""
    Path("net.py").write_text(code)
    torch.save(nn.Sequential(nn.Linear(90, 80), nn.Linear(80, 9)).to(dtype).state_dict(), "net.pt")
    done = invoke("prune", "net.pt", "--arch", "net.py:build", "--input-shape", "90", "--ratio", ".3", "-o", "my small")
    assert done.code == 0, done.err
    told = f"`compress export 'my small' --safetensors --quantize {name}`"
    assert (told in done.err) == bool(name) and ("do not compare" in done.err) == bool(name)


def test_parameters_that_no_output_depends_on(invoke: Invoke) -> None:
    code = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.aux, self.b = nn.Linear(9, 8), nn.Linear(9, 100), nn.Linear(8, 2)

    def forward(self, x):
        return (self.b(self.a(x)), self.aux(x)) if self.training else self.b(self.a(x))
"""
    Path("net.py").write_text(code)
    layers = nn.ModuleDict({"a": nn.Linear(9, 8), "aux": nn.Linear(9, 100), "b": nn.Linear(8, 2)})
    torch.save(layers.state_dict(), "net.pt")
    done = invoke("prune", "net.pt", "--arch", "net.py:Net", "--input-shape", "9")
    assert done.code == 0, done.err
    assert "Left out are 1,000 parameters that no output depends on: aux.weight, aux.bias" in done.err
