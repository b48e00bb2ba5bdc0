"""Pruning while the network trains, from files to files: `compress retrain` and `compress prune --method`."""

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
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import compress
from compress.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]
NAME = "annealed-elsewhere"
DATA = ("--data", "digits")


@pytest.fixture(autouse=True)
def site(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In an empty folder, with annealing registered by another distribution."""
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[compress.retrain]\n{NAME} = compress_plugins.annealing:Annealing\n")
    monkeypatch.syspath_prepend(str(info.parent))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return info.parent


def environment(site: Path) -> dict[str, str]:
    left = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return left | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "plugins", site))), "OMP_NUM_THREADS": "1"}


def report_of(bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(bundle, "report.json").read_text("utf-8"))
    return found


def test_two_commands_for_one_thing(invoke: Invoke) -> None:
    words = (str(MLP), "--keep", "0.2", *DATA, "--epochs", "6", "--lr", "0.05")
    one = invoke("prune", "--method", NAME, *words, "-o", "one")
    assert one.code == 0, one.err
    two = invoke("retrain", "--mode", NAME, *words, "-o", "two")
    assert two.code == 0, two.err
    assert "--round-to" not in two.err  # which this command does not have
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    report = report_of("one")
    assert report["before"]["params"] == report["before"]["nonzero"] == 50_610
    assert report["before"]["accuracy"]["accuracy"] > 0.99  # of the model that came in
    assert report["after"]["params"] < 0.52 * 50_610 and report["after"]["accuracy"]["accuracy"] > 0.9
    assert report["verification"]["slice"] < 1e-9
    left = [entry["nonzero"] for entry in report["history"]]
    assert len(left) == 7 and left[0] == 50_610 and left[3:] == [50_610 - 24_000 - 800] * 4
    assert (report["method"]["name"], report["method"]["options"]["keep"]) == (NAME, 0.2)
    assert report["method"]["budget"] is None and report["data"]["train"] == 1293
    assert "Epoch 3 of 6" in one.err and "25,810 parameters not zero" in one.err
    recipe = tomllib.loads(Path("one/recipe.toml").read_text())
    assert recipe["finetune"]["epochs"] == 6 and recipe["finetune"]["clip_norm"] == 2
    assert recipe["prune"]["options"]["mu"] == 10
    assert report["warnings"] == [] and "warning" not in one.err
    assert not Path("one.training").exists()


def test_the_trained_weights_are_those_of_the_bundle_and_of_the_class(invoke: Invoke) -> None:
    words = ("retrain", str(MLP), "--mode", NAME, "--unit-method", "dependency", "--params", "0.4", *DATA)
    done = invoke(*words, "--epochs", "4", "--no-calibrate", "--keep-module", "-o", "small")
    assert done.code == 0, done.err
    report = report_of("small")
    assert 0.35 * 50_610 < report["after"]["params"] <= 0.4 * 50_610
    # Nothing more is lost by the slice: the masked network was trained
    trained = max(e["validation accuracy"] for e in report["history"][2:])
    assert report["after"]["accuracy"]["accuracy"] > trained - 0.05 > 0.9
    bundle, own = compress.load("small").state_dict(), load_file("small/module.safetensors")
    assert own.keys() == bundle.keys() and all(torch.equal(own[n], bundle[n]) for n in own)
    original = torch.load(MLP, weights_only=True)["state_dict"]
    kept = json.loads(Path("small/plan.json").read_text())["kept"]["1.weight"]["0"]
    assert not torch.equal(own["1.weight"], original["1.weight"][kept]), "it has been trained"


GATED = """
from dataclasses import dataclass

import torch
from torch import nn

from compress.plugin import Session


@dataclass(frozen=True)
class Gated:
    \"\"\"Trains a gate on every unit behind an activation and leaves it in the network\"\"\"

    def start(self, context):
        return Gates(context)


class Gates(Session):
    def __init__(self, context):
        super().__init__(context)
        graph = self.network.graph
        relu = next(node for node in graph.nodes if node.name.startswith("relu"))
        self.network.gates = nn.Parameter(torch.ones(relu.meta["val"].shape[1]))
        with graph.inserting_after(relu):
            gates = graph.get_attr("gates")
        with graph.inserting_after(gates):
            gated = graph.call_function(torch.ops.aten.mul.Tensor, (relu, gates))
        relu.replace_all_uses_with(gated, delete_user_cb=lambda node: node is not gated)
        self.network.recompile()

    def plan(self, context):
        return context.plan_from_scores({g.name: torch.arange(g.size) for g in context.groups})
"""


def test_a_budget_counts_in_the_network_that_was_trained(invoke: Invoke, site: Path) -> None:
    """Operations that a session leaves in the network make other labels than those of the network that came in."""
    (site / "gated_training.py").write_text(GATED)
    names = (site / "elsewhere-1.0.dist-info" / "entry_points.txt").read_text()
    (site / "elsewhere-1.0.dist-info" / "entry_points.txt").write_text(f"{names}gated = gated_training:Gated\n")
    done = invoke("prune", str(MLP), "--method", "gated", "--bytes", "0.5", *DATA, "--epochs", "1", "-o", "one")
    assert done.code == 0, done.err
    report = report_of("one")
    assert 0.45 < report["after"]["bytes"] / report["before"]["bytes"] <= 0.52


def test_time_is_no_budget_of_a_training(invoke: Invoke) -> None:
    done = invoke("prune", str(MLP), "--method", NAME, "--latency", "0.5", *DATA, "--epochs", "1")
    assert done.code == 2 and "--latency: " in done.err and "before the result can be timed" in done.err


def test_weights_that_stay_zero(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--granularity", "weight", "--keep", "0.1", *DATA, "--epochs", "4")
    done = invoke("retrain", *words, "--distill", "none", "-o", "zeros")
    assert done.code == 0, done.err
    plan = json.loads(Path("zeros/plan.json").read_text())
    assert {n: len(m["zero"]) for n, m in plan["masks"].items()} == {"3.weight": 27_000, "5.weight": 900}
    report = report_of("zeros")
    assert report["after"]["nonzero"] < 20_000 + 3_100
    assert (report["before"]["nominal"], report["after"]["nominal"]) == (31_000, 3_100)
    assert any(len(units) for units in plan["removed_units"].values())  # some were dead


@pytest.mark.parametrize(
    ("mode", "after"),
    [
        (f"{NAME} --every step", 5),
        ("dsc --scope all", 90),  # inputs were chosen after 84 of 168 steps
        ("standout --phases", 60),  # between the pruning and Adam
        ("diffsparse", 20),
        ("wiring", 50),
    ],
)
def test_killed_and_resumed_is_uninterrupted(invoke: Invoke, site: Path, mode: str, after: int) -> None:
    """kill -9 while masks, gates or thresholds are still on their way."""
    words = ["retrain", str(MLP), "--mode", *mode.split(), *DATA, "--epochs", "8", "--save-every", "5"]
    words += ["--no-calibrate"]
    saved = kill_after([*words, "-o", "killed"], Path("killed.training/state.pt"), after, environment(site))
    assert after <= saved < 8 * 21 and not Path("killed").exists()
    if after == 5:
        other = invoke(*words, "--keep", "0.6", "--resume", "-o", "killed")
        assert other.code == 2 and "is of another run: prune.options.keep (None, now 0.6)" in other.err
    resumed = invoke(*words, "--resume", "-o", "killed")
    assert resumed.code == 0 and f"Going on after step {saved} of {8 * 21}" in resumed.err, resumed.err
    assert not Path("killed.training").exists()
    assert invoke(*words, "-o", "whole").code == 0
    for name in ("model.safetensors", "plan.json"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()
    assert report_of("killed")["history"] == report_of("whole")["history"]


def kill_after(words: list[str], state: Path, step: int, environment: dict[str, str]) -> int:
    """Kills a command once its state is of a step or a later one; which one it left."""
    null = subprocess.DEVNULL
    running = subprocess.Popen([sys.executable, "-m", "compress", *words], env=environment, stderr=null, stdout=null)
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline:
        if state.exists() and torch.load(state, weights_only=True)["step"] >= step:
            break
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    return int(torch.load(state, weights_only=True)["step"])


def test_two_processes_mask_what_one_masks(invoke: Invoke, site: Path) -> None:
    words = ["retrain", str(MLP), "--mode", NAME, *DATA, "--epochs", "2", "--keep", "0.3", "--granularity", "weight"]
    words += ["--device", "cpu", "--lr", "0.01"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    many = subprocess.run(
        [*torchrun, "-m", "compress", *words, "-o", "two"],
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert many.returncode == 0, many.stderr
    assert many.stderr.count("Epoch 2 of 2") == 1 and many.stdout.count("accuracy") == 1
    done = invoke(*words, "-o", "one")
    assert done.code == 0, done.err
    one, two = (compress.load(name).state_dict() for name in ("one", "two"))
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in two.items()}
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-3)
        # Sums of gradients differ in their last bits, so that a few weights at the edge may change places
        assert float(((tensor == 0) != (two[name] == 0)).float().mean()) < 0.001, name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prune", "--method", NAME), "prunes while the network trains, and there is no data"),
        (("prune", "--method", NAME, *DATA), "prunes while the network trains: 0 epochs are none"),
        (("retrain", "--mode", NAME), "retrain needs --data"),
        (("retrain", "--mode", NAME, *DATA, "--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("retrain", "--mode", NAME, *DATA, "--keep", "1.5"), "--keep: must be above 0 and below 1, got 1.5"),
        (("retrain", "--mode", NAME, *DATA, "--keep", "half"), "--keep: 'half' is not a number"),
        (
            ("retrain", "--mode", NAME, *DATA, "--params", "10M"),
            "--params 10,000,000: the whole network has 50,610, so nothing would go",
        ),
        (
            ("retrain", "--mode", NAME, *DATA, "--prune-outputs"),
            "to tell all classes apart, each by an output of its own",
        ),
        (
            ("retrain", "--mode", "standout", *DATA, "--keep-module"),
            "--keep-module: standout leaves a network of other",
        ),
        (("retrain", "--mode", "dsc", *DATA, "--keep-module"), "--keep-module: dsc leaves a network of other"),
        (("retrain", "--mode", "tetris", *DATA), "--mode tetris: tetris does not train"),
        (("retrain", "--mode", "annealed-elsewere", *DATA), "--mode annealed-elsewere: there is no such mode"),
        (("retrain", "--mode", NAME, *DATA, "--unit-method", "tetris"), "tetris is a pruner and scores no units"),
        (("retrain", "--mode", NAME, "--data", "npz:test.npz"), "there is no training part"),
        (("retrain", "--mode", NAME, *DATA, "--lr", "1e30", "--epochs", "4"), "no epoch before it can be kept"),
        (("retrain", "--mode", "wiring", "--by", "dnw", *DATA, "--lr", "1e30", "--epochs", "1"), "nothing was learned"),
    ],
)
def test_what_is_refused(invoke: Invoke, words: tuple[str, ...], said: str) -> None:
    np.savez("test.npz", x_test=np.zeros((4, 64), np.float32), y_test=np.arange(4))
    done = invoke(words[0], str(MLP), *words[1:], "-o", "refused")
    assert done.code == 2 and "error: " in done.err and said in done.err, done.err
    assert "Traceback" not in done.err and not Path("refused").exists()


@pytest.mark.parametrize("words", [("retrain", "--mode", NAME), ("retrain", "--mode", "wiring"), ("finetune",)])
def test_a_model_that_diverged_is_refused(invoke: Invoke, words: tuple[str, ...]) -> None:
    checkpoint = torch.load(MLP, weights_only=True)
    checkpoint["state_dict"]["3.weight"][0, 0] = torch.nan
    torch.save(checkpoint, "diverged.pt")
    done = invoke(words[0], "diverged.pt", *words[1:], *DATA, "-o", "refused")
    assert done.code == 2 and "diverged.pt: 3.weight holds 1 number that is not finite" in done.err, done.err
    assert not Path("refused").exists()


def test_a_training_is_kept_where_its_result_cannot_be_written(invoke: Invoke) -> None:
    words = ("retrain", str(MLP), "--mode", NAME, *DATA, "--epochs", "1", "-o", "late")
    reason = "the disk is full"
    with mock.patch("compress.pipeline.prune.write", side_effect=InputError(reason)):
        done = invoke(*words)
    assert done.code == 2 and f"error: {reason}" in done.err and not Path("late").exists()
    assert "The training is kept in late.training: the same command with --resume goes on from there" in done.err
    done = invoke(*words, "--resume")
    assert done.code == 0 and "Epoch 1" not in done.err, done.err
    assert not Path("late.training").exists()


def test_methods_say_how_it_is_called(invoke: Invoke) -> None:
    page = invoke("methods", NAME).out
    assert f"compress retrain model.pt --data digits --mode {NAME} --keep 0.5" in page and "retrain" in page


def test_zeros_that_leave_nothing_dead_are_a_result(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--granularity", "weight", "--keep", "0.7", *DATA, "--epochs", "1")
    done = invoke("retrain", *words, "--distill", "none", "-o", "zeros")
    assert done.code == 0, done.err
    plan, report = json.loads(Path("zeros/plan.json").read_text()), report_of("zeros")
    assert {n: len(m["zero"]) for n, m in plan["masks"].items()} == {"3.weight": 9_000, "5.weight": 300}
    assert not any(len(units) for units in plan["removed_units"].values())
    assert report["data"]["calibration"] is None  # the training has made up for its zeros


def test_from_scratch(invoke: Invoke) -> None:
    words = (str(MLP), "--mode", NAME, "--keep", "0.2", *DATA, "--epochs", "5", "--lr", "0.05", "--distill", "none")
    done = invoke("retrain", *words, "--from-scratch", "-o", "fresh")
    assert done.code == 0, done.err
    report = report_of("fresh")
    assert report["before"]["accuracy"]["accuracy"] > 0.99  # of the model that came in
    assert report["history"][0]["validation accuracy"] < 0.4 < 0.7 < report["after"]["accuracy"]["accuracy"]
    assert tomllib.loads(Path("fresh/recipe.toml").read_text())["prune"]["from_scratch"] is True
    again = invoke("retrain", *words, "--from-scratch", "-o", "again")
    assert again.code == 0, again.err
    assert Path("fresh/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
