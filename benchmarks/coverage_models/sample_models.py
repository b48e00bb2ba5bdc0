"""The trained networks of ``sample_models/``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from compress.graph.trace import plain
from coverage_models.case import Case, images

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def cases() -> list[Case]:
    return [
        Case("samples", "digits_mlp", "digits", _mlp, lambda: ((torch.randn(2, 64),), {})),
        Case("samples", "digits_resnet", "digits", _resnet, images(8, channels=1)),
        Case("samples", "digits_mobile", "digits", _mobile, images(8, channels=1)),
        Case("samples", "digits_vit", "digits", _vit, images(8, channels=1)),
    ]


def _architectures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_architectures", SAMPLES / "architectures.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(SAMPLES / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _mlp() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    module = nn.Sequential(*layers)
    module.load_state_dict(torch.load(SAMPLES / "digits_mlp.pt", weights_only=True)["state_dict"])
    return module


def _resnet() -> nn.Module:
    from safetensors.torch import load_file

    module: nn.Module = _architectures().residual_cnn()
    module.load_state_dict(load_file(SAMPLES / "digits_resnet.safetensors"))
    return module


def _mobile() -> nn.Module:
    module: nn.Module = _architectures().mobile_cnn()
    module.load_state_dict(torch.load(SAMPLES / "digits_mobile.pt", weights_only=True))
    return module


def _vit() -> nn.Module:
    return plain(torch.export.load(SAMPLES / "digits_vit.pt2").module(check_guards=False))
