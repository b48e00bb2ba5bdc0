"""The weights of TorchScript archives, and nothing of their code."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.checkpoint import load_model
from compress.checkpoint.torchscript import read_torchscript
from compress.errors import InputError


class Small(nn.Module):
    """Two layers that share a weight, a norm, and a list of numbers that TorchScript keeps as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.tied = nn.Linear(4, 4, dtype=torch.float32)
        self.tied.weight = self.body[0].weight  # type: ignore[assignment]
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.body(x)) * self.sizes[1]


def saved(module: nn.Module, path: Path, how: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its files are around
        made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.ones(2, 4))
        torch.jit.save(torch.jit.freeze(made) if how == "frozen" else made, path)
    return path


@pytest.mark.parametrize("how", ["script", "trace"])
def test_parameters_and_buffers_by_name(how: str, tmp_path: Path) -> None:
    module = Small().eval()
    found = read_torchscript(saved(module, tmp_path / "model.pt", how))
    expected = module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items())


def test_with_the_architecture_it_is_a_model(tmp_path: Path) -> None:
    original = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    path = saved(original, tmp_path / "model.pt", "script")
    model = load_model(path, arch="mlp:4-3-2")
    x = torch.randn(5, 4)
    assert model.form == "TorchScript" and "its code is not loaded" in model.notes[0]
    assert torch.equal(model.module(x), original(x))
    with pytest.raises(InputError, match="no known architecture") as caught:
        load_model(path)
    assert "--arch mlp:4-3-2" in caught.value.hint


def test_a_frozen_module_has_no_weights(tmp_path: Path) -> None:
    path = saved(nn.Sequential(nn.Linear(4, 3)).eval(), tmp_path / "model.pt", "frozen")
    with pytest.raises(InputError, match="it was frozen"):
        read_torchscript(path)
