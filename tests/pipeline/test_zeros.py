"""`compress prune` on single weights: zeros in files and reports, and units that are dead of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import compress

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
RESNET = SAMPLES / "digits_resnet.safetensors"
ARCH = f"{SAMPLES}/architectures.py:residual_cnn"

pytestmark = pytest.mark.usefixtures("fast")


def report_of(bundle: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    return report


def test_zeroed_weights_are_shown(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", str(SAMPLES / "digits_mlp.pt"), "--method", "tetris", "--granularity", "weight")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    assert "parameters that are not zero" in done.out
    report = report_of(tmp_path / "b")
    assert report["after"]["nonzero"] < 0.9 * report["after"]["params"]
    for size in ("params", "macs"):  # nothing is dead, so nothing is physically smaller
        assert report["after"][size] == report["before"][size]
    file_size = (tmp_path / "b" / "model.safetensors").stat().st_size
    assert report["after"]["files"] == {"model.safetensors": file_size}
    assert file_size < report["after"]["bytes"]  # zeros are packed
    exported = invoke("export", str(tmp_path / "b"), "--onnx", "--safetensors", "-o", str(tmp_path / "other"))
    assert f"{tmp_path / 'other' / 'model.onnx'}: every zero is stored there" in exported.err
    plan = json.loads((tmp_path / "b" / "plan.json").read_text(encoding="utf-8"))
    found = compress.load(tmp_path / "b").state_dict()
    for name, mask in plan["masks"].items():
        assert mask["shape"] == list(found[name].shape)  # nothing is dead here
        assert not found[name].flatten()[mask["zero"]].any()
        assert int((found[name] != 0).sum()) == found[name].numel() - len(mask["zero"])


def test_three_sizes_and_pictures_of_single_weights(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """19,200 + 30,000 + 1,000 weights; 410 biases belong to the model alone."""
    words = ("prune", str(SAMPLES / "digits_mlp.pt"), "--method", "tetris", "--granularity", "weight", "--bin", "20")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    report = report_of(tmp_path / "b")
    before, after = report["before"], report["after"]
    assert (before["params"], before["nonzero"], before["nominal"]) == (50_610, 50_610, 50_200)
    notes = report["method"]["notes"]
    assert after["nominal"] == sum(n["kept_weights"] for n in notes.values() if "kept_weights" in n)
    assert after["nominal"] < after["nonzero"] < after["params"]
    assert [f["file"] for f in report["figures"]] == [f"figures/tetris-{n}-weight.svg" for n in (1, 3, 5)]
    text = (tmp_path / "b" / "report.md").read_text(encoding="utf-8")
    for figure in report["figures"]:
        assert (tmp_path / "b" / figure["file"]).read_text(encoding="utf-8").startswith("<?xml")
        assert f"]({figure['file']})" in text


def test_dead_units_of_a_checkpoint_go_exactly(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """Three hidden channels that a zero scale makes constants, one of them other than zero in front of padding."""
    tensors = safetensors.torch.load_file(RESNET)
    tensors["blocks.1.bn1.weight"][:3] = 0
    tensors["blocks.1.bn1.bias"][:3] = torch.tensor([-1.0, 0.0, 0.5])
    tensors["blocks.0.conv2.weight"][:, 4] = 0
    file = tmp_path / "dead.safetensors"
    safetensors.torch.save_file(tensors, file)
    words = ("prune", str(file), "--arch", ARCH, "--input-shape", "1,8,8", "--method", "dead")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    report = report_of(tmp_path / "b")
    shrunk = {g["name"]: g["before"] - g["after"] for g in report["groups"] if g["after"] < g["before"]}
    assert shrunk == {"blocks.0.conv1": 1, "blocks.1.conv1": 2}
    assert report["verification"]["slice"] < 1e-9
    assert report["method"]["granularity"] == "weight"
    again = invoke("prune", str(tmp_path / "b"), "--method", "dead", "-o", str(tmp_path / "c"))
    assert again.code == 3
    assert "nothing is dead: 0 of " in again.err


def test_a_pattern_of_two_of_four_is_told_of_what_is_left(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """Pools of two leave two of four weights, also where another tool left them, until an input between them goes."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, width) for width in (8, 8, 2)]
    net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2]).eval()
    second, last = net.get_parameter("2.weight"), net.get_parameter("4.weight")
    with torch.no_grad():
        second.copy_(torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(8, 2) * torch.randn(8, 8))  # reads 1, 2, 5, and 6
        last[:, 1] = 0
    torch.export.save(torch.export.export(net, (torch.rand(2, 8),)), tmp_path / "net.pt2")
    words = ("prune", str(tmp_path / "net.pt2"), "--method")
    done = invoke(*words, "dead", "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    notes = report_of(tmp_path / "b")["method"]["notes"]
    assert (notes["0"]["dead"], notes["2"]["dead"]) == (4, 1)
    assert notes["2.weight"]["2:4 pattern"] == "no, as inputs are gone since"
    done = invoke(*words, "channel", "--granularity", "weight", "--first-layer", "-o", str(tmp_path / "c"))
    assert report_of(tmp_path / "c")["method"]["notes"]["0.weight"]["2:4 pattern"] == "yes"
    done = invoke(*words, "channel", "-o", str(tmp_path / "d"))  # of whole units nothing is zero
    assert done.code == 0, done.err
    notes = report_of(tmp_path / "d")["method"]["notes"]
    assert not any("2:4 pattern" in note or "kept_weights" in note for note in notes.values())
    assert notes["4.weight"]["share of weights"] == 0.5


def test_a_network_that_reads_nothing_any_more_is_told(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
    torch.export.save(torch.export.export(net, (torch.rand(2, 8),)), tmp_path / "net.pt2")
    with torch.no_grad():
        net.get_parameter("0.weight").mul_(1e-3)
    torch.export.save(torch.export.export(net, (torch.rand(2, 8),)), tmp_path / "faint.pt2")
    words = ("--method", "magnitude", "--granularity", "weight", "-o", str(tmp_path / "b"))
    one = invoke("prune", str(tmp_path / "faint.pt2"), *words, "--layers", "together", "--ratio", "0.5")
    assert one.code == 0 and "puts out the same" not in one.err  # one weight of the first layer stays, and is read
    done = invoke("prune", str(tmp_path / "net.pt2"), *words, "--ratio", "0.97")
    assert done.code == 0, done.err
    text = "the result puts out the same whatever its input is"
    assert text in done.err and text in report_of(tmp_path / "b")["warnings"][0]
