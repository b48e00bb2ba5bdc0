"""The sample checkpoints load without running any code of theirs and reach what their README says."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent.parent / "sample_models"
FILES = ("digits_mlp.pt", "digits_resnet.safetensors", "digits_mobile.pt", "digits_vit.pt2")
ROW = re.compile(r"^\| `(digits_\S+)` \|.*\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) % \((\d+) of 360\) \|$", re.M)


@cache
def architectures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_architectures", FOLDER / "architectures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def held_out() -> tuple[Tensor, Tensor]:
    data = load_digits()
    _, test = train_test_split(
        np.arange(len(data.target)), test_size=360, random_state=0, stratify=data.target
    )
    images = torch.from_numpy((data.images[test] / 16.0).astype(np.float32))
    return images[:, None], torch.from_numpy(data.target[test])


def table() -> dict[str, tuple[int, int, float, int]]:
    """File -> parameters, bytes, accuracy in percent, images right, as the README states them."""
    rows = ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    return {
        file: (int(parameters.replace(",", "")), int(size.replace(",", "")), float(percent), int(right))
        for file, parameters, size, percent, right in rows
    }


def mlp(checkpoint: dict[str, object]) -> nn.Module:
    kind, sizes = str(checkpoint["arch"]).split(":")
    assert kind == "mlp"
    a, b, c, d = map(int, sizes.split("-"))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d)
    )


@cache
def load(file: str) -> nn.Module:
    path = FOLDER / file
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    if path.suffix == ".safetensors":
        model = architectures().residual_cnn()
        with safe_open(path, "pt") as content:
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    elif file == "digits_mlp.pt":
        checkpoint = torch.load(path, weights_only=True)
        model, state = mlp(checkpoint), checkpoint["state_dict"]
    else:
        model, state = architectures().mobile_cnn(), torch.load(path, weights_only=True)
    model.load_state_dict(state, strict=True)
    return model.eval()


def test_table_names_every_file() -> None:
    assert tuple(table()) == FILES
    assert {p.name for p in FOLDER.iterdir() if p.name.startswith("digits_")} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_file_reaches_the_stated_accuracy(file: str) -> None:
    parameters, size, percent, right = table()[file]
    images, digits = held_out()
    model = load(file)
    with torch.no_grad():
        correct = int((model(images).argmax(1) == digits).sum())
    assert len(digits) == 360
    assert correct == right
    assert round(100 * correct / 360, 2) == percent >= 96
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (FOLDER / file).stat().st_size == size


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("file", FILES)
def test_batch_is_free(file: str, count: int) -> None:
    images, _ = held_out()
    with torch.no_grad():
        assert load(file)(images[:count]).shape == (count, 10)


def test_files_stay_small() -> None:
    assert sum((FOLDER / file).stat().st_size for file in FILES) < 6_000_000


def test_checkpoint_describes_itself() -> None:
    checkpoint = torch.load(FOLDER / "digits_mlp.pt", weights_only=True)
    assert {key: checkpoint[key] for key in checkpoint if key != "state_dict"} == {
        "epoch": 100,
        "arch": "mlp:64-300-100-10",
        "input_shape": [64],
        "data": "digits",
    }


def test_safetensors_metadata_describes_the_model() -> None:
    with safe_open(FOLDER / "digits_resnet.safetensors", "pt") as content:
        metadata = content.metadata()
    assert json.loads(metadata.pop("input_shape")) == [1, 8, 8]
    assert metadata == {"arch": "sample_models/architectures.py:residual_cnn", "data": "digits"}


def test_transformer_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        architectures().vit(width=30)
