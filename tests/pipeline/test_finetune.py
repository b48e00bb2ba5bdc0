"""`compress finetune` and `compress prune --epochs`, from files to files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compress

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def report_of(bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(bundle, "report.json").read_text("utf-8"))
    return found


@pytest.fixture
def small(invoke: Invoke) -> str:
    """A bundle with a fifth of the units, far from what the original could do."""
    done = invoke("prune", str(MLP), "--ratio", "0.8", "--data", "digits", "--no-calibrate", "-o", "small")
    assert done.code == 0, done.err
    return "small"


def test_a_bundle_is_trained_with_its_original_as_teacher(invoke: Invoke, small: str) -> None:
    done = invoke("finetune", small, "--data", "digits", "--epochs", "5", "--lr", "0.05", "-o", "tuned")
    assert done.code == 0, done.err
    report = report_of("tuned")
    assert report["after"]["accuracy"]["accuracy"] > report["before"]["accuracy"]["accuracy"] + 0.3
    assert report["after"]["accuracy"]["low"] > report["before"]["accuracy"]["high"]
    assert report["after"]["params"] == report["before"]["params"]
    assert [entry["epoch"] for entry in report["history"]] == list(range(6))
    assert (report["method"]["name"], report["method"]["options"]["distill"]) == ("finetune", "logits")
    assert report["method"]["options"]["teacher"] == str(MLP)
    assert (report["data"]["train"], report["data"]["test"]) == (1437 - 144, 360)
    assert json.loads(Path("tuned/plan.json").read_text()) == json.loads(Path("small/plan.json").read_text())
    page = Path("tuned/report.md").read_text()
    assert page.startswith("# small, fine-tuned") and "<summary>Training: 5 epochs</summary>" in page
    whole = Path("tuned/report.html").read_text()
    assert f"the weights of epoch {report['best_epoch']} were kept" in whole and 'aria-label="Loss"' in whole
    assert len(report["after"]["accuracy"]["per_class"]) == report["after"]["accuracy"]["confident_classes"] == 10
    assert "weights of epoch" in done.out and "compress eval tuned" in done.out
    found = invoke("eval", "tuned", "--data", "digits", "--quiet")
    assert float(found.out) == pytest.approx(report["after"]["accuracy"]["accuracy"], abs=1e-6)
    assert not Path("tuned.training").exists()


def test_the_recipe_says_everything_and_the_same_command_gives_the_same_bytes(invoke: Invoke, small: str) -> None:
    words = ("finetune", small, "--data", "digits", "--epochs", "2", "--optimizer", "adamw", "--seed", "3")
    for name in ("one", "two"):
        assert invoke(*words, "-o", name).code == 0
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    recipe = tomllib.loads(Path("one/recipe.toml").read_text())
    assert recipe == tomllib.loads(Path("two/recipe.toml").read_text())
    assert (recipe["seed"], recipe["model"]["path"], recipe["data"]) == (3, "small", {"spec": "digits"})
    assert recipe["finetune"] == {
        "epochs": 2, "lr": 0.001, "optimizer": "adamw", "momentum": 0.9, "nesterov": True, "weight_decay": 0.0001,
        "schedule": "cosine", "warmup": 0.05, "batch_size": 64, "accumulate": 1, "precision": "no",
        "label_smoothing": 0.0, "augment": "auto", "validation": 0.1, "patience": 10, "distill": "auto",
        "temperature": 4.0, "distill_weight": 0.7, "loss": "cross-entropy", "clip_norm": 2.0,
    }  # fmt: skip
    assert recipe["teacher"]["path"] == str(MLP)
    # A bundle that was trained names its teacher, too
    again = invoke("finetune", "one", "--data", "digits", "--epochs", "1", "-o", "three")
    assert again.code == 0 and report_of("three")["method"]["options"]["teacher"] == str(MLP)


def test_without_the_original_it_is_trained_on_labels(invoke: Invoke, small: str) -> None:
    recipe = Path(small, "recipe.toml")
    recipe.write_text(recipe.read_text().replace(str(MLP), "gone.pt"))
    done = invoke("finetune", small, "--data", "digits", "--epochs", "1", "-o", "tuned")
    assert done.code == 0 and "Training without a teacher: the original gone.pt is not here" in done.err
    assert report_of("tuned")["method"]["options"]["distill"] == "none"
    refused = invoke("finetune", small, "--data", "digits", "--distill", "logits", "-o", "other")
    assert refused.code == 2 and "error: --distill logits needs the original model" in refused.err
    named = invoke("finetune", small, "--data", "digits", "--epochs", "1", "--teacher", str(MLP), "-o", "named")
    assert named.code == 0 and report_of("named")["method"]["options"]["distill"] == "logits"


def test_code_that_a_bundle_names_is_not_run(invoke: Invoke, small: str) -> None:
    recipe = Path(small, "recipe.toml")
    text = recipe.read_text()
    recipe.write_text(text.replace(f'path = "{MLP}"\n', f'path = "{MLP}"\narch = "evil.py:build"\n'))
    Path("evil.py").write_text("raise SystemExit('it ran')")
    done = invoke("finetune", small, "--data", "digits", "--epochs", "1", "-o", "tuned")
    assert done.code == 0 and "is built by evil.py:build, which is run only where --arch says so" in done.err


def test_pruning_and_training_in_one_command(invoke: Invoke) -> None:
    words = ("prune", str(MLP), "--ratio", "0.8", "--data", "digits", "--no-calibrate", "--keep-module")
    done = invoke(*words, "--epochs", "5", "--lr", "0.05", "-o", "both")
    assert done.code == 0, done.err
    report = report_of("both")
    assert report["after"]["accuracy"]["accuracy"] > 0.8 and report["verification"]["slice"] < 1e-6
    assert len(report["history"]) == 6 and report["data"]["train"] == 1293
    assert 0.1 < report["untrained_accuracy"] < report["after"]["accuracy"]["accuracy"] - 0.1
    assert tomllib.loads(Path("both/recipe.toml").read_text())["finetune"]["epochs"] == 5
    # The weights for the original class are the trained ones
    from safetensors.torch import load_file

    weights = compress.load("both").state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in load_file("both/module.safetensors").items())
    assert not Path("both.training").exists()


def test_masked_weights_do_not_grow_back(invoke: Invoke) -> None:
    words = ("prune", str(MLP), "--method", "tetris", "--bin", "500", "--granularity", "weight", "--data", "digits")
    for name, more in (("masked", ()), ("trained", ("--epochs", "1"))):
        assert invoke(*words, *more, "-o", name).code == 0
    before, after = (compress.load(name).state_dict() for name in ("masked", "trained"))
    zeros = [(before[name] == 0, after[name] == 0) for name in before if before[name].dim() == 2]
    assert any(bool(one.any()) for one, _ in zeros)
    assert all(torch.equal(one, other) for one, other in zeros)


def test_killed_and_resumed_is_uninterrupted(invoke: Invoke, small: str) -> None:
    """kill -9 in the middle of an epoch; the state is that of the last save."""
    words = ["finetune", small, "--data", "digits", "--epochs", "8", "--save-every", "7", "-o", "killed"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "plugins")))}
    running = subprocess.Popen(
        [sys.executable, "-m", "compress", *words],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    state = Path("killed.training/state.pt")
    deadline = time.monotonic() + 60
    while not state.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    step = torch.load(state, weights_only=True)["step"]
    assert 7 <= step < 8 * 21 and not Path("killed").exists()
    resumed = invoke(*words, "--resume")
    assert resumed.code == 0 and f"Going on after step {step} of {8 * 21}" in resumed.err, resumed.err
    assert not state.exists()
    assert invoke(*words[:-1], "whole").code == 0
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert report_of("killed")["history"] == report_of("whole")["history"]


def test_an_interrupted_run_ends_with_130_and_can_be_resumed(
    invoke: Invoke, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compress.recover.loop import Loop

    step = Loop._step

    def interrupted(loop: Loop) -> None:
        step(loop)
        if loop.step == 30:
            signal.raise_signal(signal.SIGINT)

    words = ("finetune", small, "--data", "digits", "--epochs", "2", "-o", "tuned")
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", interrupted)
        stopped = invoke(*words)
    assert stopped.code == 130 and "--resume goes on from there" in stopped.err
    assert Path("tuned.training/state.pt").exists() and not Path("tuned").exists()
    changed = invoke(*words, "--lr", "0.5", "--resume")
    assert changed.code == 2 and "is of another run: finetune.lr (0.02, now 0.5)" in changed.err
    assert invoke(*words, "--resume").code == 0
    assert len(report_of("tuned")["history"]) == 3
    nothing = invoke(*words, "--resume")
    assert nothing.code == 2 and "there is no interrupted training in tuned.training" in nothing.err


def test_a_new_run_says_that_it_forgets_an_interrupted_one(invoke: Invoke, small: str) -> None:
    Path("tuned.training").mkdir()
    Path("tuned.training/state.pt").write_bytes(b"old")
    done = invoke("finetune", small, "--data", "digits", "--epochs", "1", "-o", "tuned")
    assert done.code == 0 and "tuned.training holds an interrupted training, which is lost now" in done.err


def test_a_loss_that_is_no_number(invoke: Invoke, small: str) -> None:
    words = ("--data", "digits", "--lr", "1e30", "--epochs", "2")
    done = invoke("finetune", small, *words, "-o", "tuned")
    assert done.code == 2 and "error: nothing was learned: the loss is not a number" in done.err
    assert "Traceback" not in done.err and not Path("tuned").exists()
    pruned = invoke("prune", str(MLP), "--ratio", "0.8", "--no-calibrate", *words, "-o", "pruned")
    assert pruned.code == 0  # the pruned network is there, as it was before the training
    assert any("the training ended early" in each for each in report_of("pruned")["warnings"])
    weights = compress.load("pruned").state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in compress.load(small).state_dict().items())


def test_data_that_cannot_be_trained_on(invoke: Invoke) -> None:
    x, y = np.random.default_rng(0).random((40, 64), dtype=np.float32), np.arange(40) % 10
    np.savez("test_only.npz", x_test=x, y_test=y)
    np.savez("single.npz", x_train=x, y_train=np.full(40, 3), x_test=x, y_test=y)
    np.savez("many.npz", x_train=x, y_train=y + 7, x_test=x, y_test=y)
    np.savez("few.npz", x_train=x[:20], y_train=y[:20], x_test=x, y_test=y)
    for data, message in (
        ("npz:test_only.npz", "--data npz:test_only.npz: there is no training part"),
        ("npz:single.npz", "all training samples are of class 3"),
        ("npz:many.npz", "the model tells 10 classes apart, the training labels go up to 16"),
    ):
        done = invoke("finetune", str(MLP), "--data", data, "-o", "tuned")
        assert done.code == 2 and f"error: {message}" in done.err, done.err
    pruned = invoke("prune", str(MLP), "--data", "npz:test_only.npz", "--epochs", "1", "-o", "tuned")
    assert pruned.code == 2 and "there is no training part" in pruned.err
    few = invoke("finetune", str(MLP), "--data", "npz:few.npz", "--epochs", "1", "-o", "few")
    assert few.code == 0 and "20 training samples, fewer than a batch of 64" in few.err


def test_a_network_for_one_batch_size_is_refused(invoke: Invoke) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.reshape(1, 64))

    torch.export.save(torch.export.export(Fixed().eval(), (torch.randn(1, 64),)), "fixed.pt2")
    done = invoke("finetune", "fixed.pt2", "--data", "digits", "-o", "tuned")
    assert done.code == 3 and "takes batches of 1 alone, so it cannot be trained" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(invoke: Invoke) -> None:
    for words in (("finetune", str(MLP)), ("prune", str(MLP), "--epochs", "1")):
        done = invoke(*words, "--data", "digits", "--device", "cuda", "-o", "tuned")
        assert done.code == 2 and "error: --device cuda: no CUDA device was found" in done.err


def test_the_model_itself_is_not_replaced(invoke: Invoke, small: str) -> None:
    done = invoke("finetune", small, "--data", "digits", "-o", small)
    assert done.code == 2 and "small holds the model itself" in done.err
