from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint.pt2 import read_pt2
from compress.errors import ModelError
from compress.export import export_pt2


def test_round_trip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    found = export_pt2(model, (torch.randn(1, 3, 6, 6),), tmp_path / "model.pt2")
    assert (found.dynamic_batch, found.reason) == (True, "")
    assert found.max_error < 1e-6
    assert found.bytes == (tmp_path / "model.pt2").stat().st_size
    assert capfd.readouterr() == ("", "")
    x = torch.randn(5, 3, 6, 6)
    assert torch.allclose(torch.export.load(found.path).module()(x), model.eval()(x), atol=1e-6)
    again = read_pt2(found.path)
    assert again.input_shapes == ((3, 6, 6),)
    assert torch.allclose(again.module(x), model(x), atol=1e-6)


def test_no_pickle_and_no_paths_inside(tmp_path: Path) -> None:
    found = export_pt2(nn.Linear(4, 3), (torch.randn(2, 4),), tmp_path / "model.pt2")
    with zipfile.ZipFile(found.path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert not any(value.startswith((b"\x80\x02", b"PK")) for value in content.values())
    assert not any(b".py" in value for value in content.values())


def test_nested_inputs_and_a_fixed_batch(pair: nn.Module, fixed: nn.Module, tmp_path: Path) -> None:
    found = export_pt2(pair, (torch.randn(2, 4), torch.randint(5, (2, 3))), tmp_path / "pair.pt2")
    assert found.dynamic_batch
    assert found.max_error < 1e-6
    found = export_pt2(fixed, (torch.randn(2, 4),), tmp_path / "fixed.pt2")
    assert not found.dynamic_batch
    assert found.reason


def test_what_cannot_be_traced(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ModelError, match="cannot be traced"):
        export_pt2(Branch(), (torch.randn(2, 4),), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mul_(2))


def test_a_model_that_works_in_place_on_its_input_is_compared_on_equal_inputs(tmp_path: Path) -> None:
    assert export_pt2(InPlace().eval(), (torch.randn(2, 4),), tmp_path / "model.pt2").max_error < 1e-6
