"""`compress prune --refit`: what is refitted, from a file to a report."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import compress
from compress.data import Data, Split
from compress.recover.samples import divided

ROOT = Path(__file__).resolve().parents[2]
RESNET = ROOT / "sample_models" / "digits_resnet.safetensors"
WORDS = ("prune", str(RESNET), "--arch", f"{ROOT}/sample_models/architectures.py:residual_cnn", "--ratio", ".6")
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_kind_refits_what_it_says_and_more_helps_more(invoke: Invoke) -> None:
    accuracy, said = {}, {}
    for kind in ("norms", "layers", "joint"):
        done = invoke(*WORDS, "--data", "digits", "--refit", kind, "-o", kind)
        assert done.code == 0, done.err
        report = json.loads(Path(kind, "report.json").read_text("utf-8"))
        accuracy[kind] = report["after"]["accuracy"]["accuracy"]
        said[kind] = {key for note in report["method"]["notes"].values() for key in note}
    assert accuracy["norms"] + 0.2 < accuracy["layers"] <= accuracy["joint"] + 0.01
    assert not {key for key in said["norms"] if "refit" in key}
    assert "error after refit / before" in said["layers"] and "error after joint refit / before" not in said["layers"]
    assert "error after joint refit / before" in said["joint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--refit", "joint"), "--refit joint looks at training samples"),
        (("--refit", "joint", "--no-calibrate", "--data", "digits"), "contradict each other"),
        (("--refit", "joint", "--method", "magnitude", "--granularity", "weight", "--data", "digits"), "one by one"),
        (("--refit", "all", "--data", "digits"), "'all' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = invoke(*WORDS, *words)
    assert done.code == 2 and message in done.err
    assert not Path("compressed").exists()


def test_a_refit_sees_none_of_the_samples_that_choose_the_best_epoch(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    planning = importlib.import_module("compress.pipeline.planning")
    plain = planning.without_judges

    def noted(data: Data, share: float) -> Data | None:
        seen.append(share)
        found: Data | None = plain(data, share)
        return found

    monkeypatch.setattr(planning, "without_judges", noted)
    done = invoke(*WORDS, "--data", "digits", "--epochs", "1")
    assert done.code == 0, done.err
    assert seen == [0.1]
    split = Split(torch.arange(200.0)[:, None], torch.arange(200) % 10)
    rest, judges = plain(Data("d", split, split, 10), 0.2), divided(split, 0.2)[1]
    assert len(rest.train) == 160 and len(rest.test) == 200
    assert not set(rest.train.inputs.flatten().tolist()) & set(judges.inputs.flatten().tolist())


MASKED = ("prune", str(RESNET), *WORDS[2:4], "--granularity", "weight", "--data", "digits")


def test_networks_with_masked_weights_get_their_accuracy_back_and_keep_their_zeros(invoke: Invoke) -> None:
    accuracy, zeros, notes, tensors = {}, {}, {}, {}
    for kind in ("no-calibrate", "refit=norms", "refit=layers"):
        done = invoke(*MASKED, "--method", "channel", f"--{kind}", "-o", kind)
        assert done.code == 0, done.err
        report = json.loads(Path(kind, "report.json").read_text("utf-8"))
        accuracy[kind] = report["after"]["accuracy"]["accuracy"]
        notes[kind] = {key for note in report["method"]["notes"].values() for key in note}
        tensors[kind] = compress.load(kind).state_dict()
        zeros[kind] = {n: t == 0 for n, t in tensors[kind].items() if t.dim() > 1}
    plain, norms, layers = accuracy.values()
    assert plain < 0.6 and norms > plain + 0.2 and layers > 0.97
    for kind in ("refit=norms", "refit=layers"):
        assert all(torch.equal(zeros[kind][name], where) for name, where in zeros["no-calibrate"].items())
    changed = [n for n, t in tensors["refit=norms"].items() if not torch.equal(t, tensors["no-calibrate"][n])]
    assert changed and all(name.rpartition(".")[2] in ("running_mean", "running_var") for name in changed)
    assert "error after new statistics / before" in notes["refit=norms"] - notes["no-calibrate"]
    assert "error after refit / before" in notes["refit=layers"] - notes["refit=norms"]


def test_without_calibration_masked_weights_are_all_that_changes(invoke: Invoke) -> None:
    done = invoke(*MASKED, "--method", "channel", "--no-calibrate", "-o", "plain")
    assert done.code == 0, done.err
    before, after = load_file(RESNET), compress.load("plain").state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, torch.where(tensor == 0, 0.0, before[name]) if tensor.dim() > 1 else before[name])


def test_zeros_that_a_file_came_with_need_no_refit(invoke: Invoke) -> None:
    tensors = load_file(RESNET)
    for name in ("weight", "bias"):
        tensors[f"blocks.1.bn1.{name}"][:3] = 0
    save_file(tensors, "dead.safetensors")
    done = invoke("prune", "dead.safetensors", *MASKED[2:], "--method", "dead", "-o", "alive")
    assert done.code == 0, done.err
    report = json.loads(Path("alive", "report.json").read_text("utf-8"))
    assert report["data"]["calibration"] is None
    assert sum(g["before"] - g["after"] for g in report["groups"]) == 3
