"""`compress prune --prune-inputs` from checkpoint to ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import compress

MODEL = Path(__file__).resolve().parents[2] / "sample_models" / "digits_mlp.pt"


pytestmark = pytest.mark.usefixtures("briefly")


def prune(invoke: Callable[..., Any], output: Path, *words: str) -> Any:
    return invoke("prune", str(MODEL), "--prune-inputs", "--ratio", "0.5", "-o", str(output), *words)


def test_half_of_the_pixels(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    bundle = tmp_path / "small"
    done = prune(invoke, bundle, "--only", "kept_inputs", "--data", "digits")
    assert done.code == 0, done.err

    weights = load_file(bundle / "model.safetensors")
    kept = weights["kept_inputs"].tolist()
    assert len(kept) == 32 and kept == sorted(set(kept))
    (first,) = (w for n, w in weights.items() if w.dim() == 2 and w.shape[0] == 300)
    assert first.shape == (300, 32)
    plan = json.loads((bundle / "plan.json").read_text("utf-8"))
    assert plan["kept"]["kept_inputs"] == {"0": kept}
    report = json.loads((bundle / "report.json").read_text("utf-8"))
    assert report["verification"]["slice"] < 1e-12 and report["verification"]["reload"] < 1e-5
    assert report["before"]["params"] - report["after"]["params"] == 32 * 300
    assert report["before"]["bytes"] == 4 * report["before"]["params"]  # of the model as it came, without a selection

    small = compress.load(bundle)
    x = torch.rand(5, 64)
    other = x.clone()
    other[:, [i for i in range(64) if i not in kept]] = 7.0
    assert torch.equal(small(x), small(other))  # what was dropped is not read

    tested = invoke("eval", str(bundle), "--data", "digits")
    assert tested.code == 0, tested.err
    exported = invoke("export", str(bundle), "--onnx")
    assert exported.code == 0, exported.err
    (found,) = onnxruntime.InferenceSession(bundle / "model.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), small(x).detach(), rtol=1e-4, atol=1e-5)


def test_images_have_no_features(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    model = MODEL.with_name("digits_vit.pt2")
    done = invoke("prune", str(model), "--prune-inputs", "-o", str(tmp_path / "small"))
    assert done.code == 3
    assert "no input of the model is a table of features" in done.err
    assert not (tmp_path / "small").exists()


def test_the_original_class_takes_every_feature(tmp_path: Path, invoke: Callable[..., Any], fast: None) -> None:
    done = prune(invoke, tmp_path / "small", "--keep-module")
    assert done.code == 0, done.err
    assert "kept_inputs keeps its size: the module cannot represent it: its forward takes every input" in done.err
    assert "kept_inputs" not in load_file(tmp_path / "small" / "module.safetensors")
