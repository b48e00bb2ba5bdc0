from __future__ import annotations

from typing import Any

import pytest

from compress.evaluate import Accuracy, ClassAccuracy
from compress.measure import Latency
from compress.report import (
    Argument,
    Budget,
    DataUsed,
    Gate,
    GroupChange,
    Held,
    InputFile,
    LayerChange,
    Measures,
    Method,
    ModuleFile,
    Picture,
    Pin,
    Prunable,
    RolledBack,
    Verification,
    build_report,
)


@pytest.fixture
def least() -> dict[str, Any]:
    """The fields that every report has."""
    return {
        "command": ("compress", "prune", "my model.pth", "--ratio", "0.5"),
        "seed": 0,
        "device": "cpu",
        "input": InputFile("models/my model.pth", "0" * 64, 4200, "state dict", "mlp:4-8-2"),
        "method": Method("dependency"),
        "before": Measures(1000),
        "after": Measures(420),
        "libraries": {"python": "3.11.0", "torch": "2.11.0"},
    }


@pytest.fixture
def full(least: dict[str, Any]) -> dict[str, Any]:
    """Every field in use."""
    return {
        **least,
        "method": Method("tetris", {"bin": 500}, Budget("ratio", 0.5, 0.5, 0.48, False), "unit", {"0": {"rounds": 3}}),
        "before": Measures(
            1000, 1000, 2_000_000, 4200, {"my model.pth": 4200},
            Accuracy(95, 100, 0.95, 0.8882, 0.9785, (ClassAccuracy(95, 100, 0.9),)),
            Latency(0.004, 0.005, 50, 8, 1), 800,
        ),
        "after": Measures(
            420, 400, 1_000_000, 2100, {"model.safetensors": 2100, "model.onnx": 2500},
            Accuracy(94, 100, 0.94, 0.8752, 0.9722, (ClassAccuracy(94, 100, 0.875),)),
            Latency(0.002, 0.0025, 50, 8, 1), 380,
        ),
        "recipe": "model = 'my model.pth'\n",
        "threads": 1,
        "data": DataUsed("digits", None, 64, 100, ("all",)),
        "speedup": 2.0,
        "layers": (LayerChange("0", "Linear", 8, 4), LayerChange("2", "Linear", 2, 2, "output of the model")),
        "groups": (GroupChange("0", "channels", 8, 4),),
        "pins": (Pin("aten::sort", "post", "has | no rule"),),
        "prunable": Prunable(30, 40, (Held("has no rule", "aten::sort", ("post",), 8), Held("a tie", "", (), 2))),
        "rolled_back": (RolledBack("1", "error 0.2"),),
        "figures": (Picture("figures/tetris-0.svg", "0.weight"),),
        "module": ModuleFile("module.safetensors", 1e-7, (Argument("0", "Linear", "out_features", 8, 4),)),
        "verification": Verification(1e-12, 0.0, 3e-6),
        "history": ({"epoch": 1, "loss": 0.25}, {"epoch": 2, "loss": 0.125, "lr": 0.1}),
        "best_epoch": 2,
        "untrained_accuracy": 0.875,
        "warnings": ("The batch size is fixed.",),
        "gates": (Gate("accuracy drop", 0.02, 0.01, True), Gate("latency", 0.001, None, False)),
    }  # fmt: skip


@pytest.fixture
def old(full: dict[str, Any]) -> dict[str, Any]:
    """report.json as the first version wrote it: without classes, confidence and the best epoch."""
    report = build_report(**full)
    for side in ("before", "after"):
        for name in ("per_class", "confidence", "confident_classes"):
            del report[side]["accuracy"][name]
    del report["best_epoch"], report["untrained_accuracy"], report["data"]["class_names"]
    return report
