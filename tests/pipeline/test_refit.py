"""`compress prune --refit`: what is refitted, from a file to a report."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from compress.data import Data, Split
from compress.measure import latency_pair
from compress.pipeline.opening import Opened
from compress.pipeline.training import calibration_data
from compress.recover.samples import divided
from compress.training import Training

ROOT = Path(__file__).resolve().parents[2]
RESNET = ROOT / "sample_models" / "digits_resnet.safetensors"
WORDS = ("prune", str(RESNET), "--arch", f"{ROOT}/sample_models/architectures.py:residual_cnn", "--ratio", ".6")
pruning = importlib.import_module("compress.pipeline.writing")
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pruning, "reloaded", lambda *_: 0.0)
    monkeypatch.setattr(pruning, "latency_pair", lambda *a, **k: latency_pair(*a, **k, min_seconds=0, min_runs=2))


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
        (("--refit", "all", "--data", "digits"), "'all' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = invoke(*WORDS, *words)
    assert done.code == 2 and message in done.err
    assert not Path("compressed").exists()


def test_a_refit_sees_none_of_the_samples_that_choose_the_best_epoch() -> None:
    split = Split(torch.arange(200.0)[:, None], torch.arange(200) % 10)
    opened = Opened(MagicMock(), ((1,),), Data("d", split, split, 10), torch.device("cpu"))
    assert calibration_data(opened, None) is opened.data
    training = Training(validation=0.2)
    seen, kept_out = calibration_data(opened, training), divided(split, 0.2)[1]
    assert seen is not None and seen.train is not None and len(seen.train) == 160
    assert not set(seen.train.inputs.flatten().tolist()) & set(kept_out.inputs.flatten().tolist())
