"""`compress retrain --mode dsc` from file to file: sizes, killed and resumed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import compress

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]
NAME = "circuits-elsewhere"
WORDS = ("retrain", str(MLP), "--mode", NAME, "--data", "digits")


@pytest.fixture(autouse=True)
def site(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In an empty folder, with dsc registered by another distribution."""
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[compress.retrain]\n{NAME} = compress_plugins.dsc:DSC\n")
    monkeypatch.syspath_prepend(str(info.parent))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return info.parent


def report_of(bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(bundle, "report.json").read_text("utf-8"))
    return found


def test_a_result_that_grew_is_told(invoke: Invoke) -> None:
    done = invoke(*WORDS, "--keep", "0.97", "--epochs", "1", "--no-calibrate", "-o", "grown")
    assert done.code == 0, done.err
    assert f"the result has {report_of('grown')['after']['params']:,} parameters, and what came in 50,610" in done.err


def test_a_budget_from_file_to_file(invoke: Invoke) -> None:
    done = invoke(*WORDS, "--params", "0.4", "--epochs", "4", "-o", "small")
    assert done.code == 0, done.err
    report, model = report_of("small"), compress.load("small")
    left = sum(p.numel() for p in model.parameters())
    assert 0.98 * 0.4 * 50_610 < left <= 0.4 * 50_610 and report["after"]["params"] == left
    assert (report["before"]["params"], report["before"]["macs"]) == (50_610, 50_200)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert report["after"]["macs"] == sum(a * b for a, b in (shapes[f"{n}.weight"] for n in (1, 3, 5)))
    assert [each["before"] for each in report["layers"]] == [300, 100, 10]
    assert [each["after"] for each in report["layers"]] == [shapes[f"{n}.weight"][0] for n in (1, 3, 5)]
    assert report["method"]["budget"] == {
        "kind": "params", "value": 0.4, "target": pytest.approx(20_244), "reached": left, "limited": None,
        "counted": "layers' inputs",
    }  # fmt: skip
    assert f"{report['before']['params'] / 1000:.1f} k" in done.out and report["verification"]["slice"] < 1e-9
    assert report["method"]["notes"]["5.weight"]["inputs"] == 464
    assert report["after"]["accuracy"]["accuracy"] > 0.8
    names = {each.name for each in Path("small/figures").iterdir()}
    assert names == {"dsc-input-gates.svg", "dsc-transfer.svg", "dsc-transfer-over-time.svg"}
    x = torch.rand(3, 1, 8, 8) if report["input"]["form"] == "image" else torch.rand(3, 64)
    assert model(x).shape == (3, 10)
    # Its lists can be sliced again
    again = invoke("prune", "small", "--ratio", "0.2", "-o", "smaller")
    assert again.code == 0, again.err
    assert report_of("smaller")["verification"]["slice"] < 1e-9
    assert report_of("smaller")["after"]["params"] < left


def test_killed_and_resumed_is_uninterrupted(invoke: Invoke, site: Path) -> None:
    words = [
        *WORDS,
        "--gates",
        "bernoulli",
        "--optimizer",
        "adamw",
        "--lr",
        "0.02",
        "--epochs",
        "6",
        "--save-every",
        "5",
        "--no-calibrate",
    ]
    left = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", site)))
    running = subprocess.Popen(
        [sys.executable, "-m", "compress", *words, "-o", "killed"],
        env=left | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    state = Path("killed.training/state.pt")
    deadline = time.monotonic() + 60
    while not state.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    resumed = invoke(*words, "--resume", "-o", "killed")
    assert resumed.code == 0 and "Going on after step" in resumed.err, resumed.err
    assert invoke(*words, "-o", "whole").code == 0
    for name in ("model.safetensors", "plan.json", "figures/dsc-transfer-over-time.svg"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()
    assert report_of("killed")["history"] == report_of("whole")["history"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ratio", "0.999"), "--ratio 0.999 leaves 0.9 of 892 inputs of layers"),
        (("--max-drop", "1", "--macs", "0.5"), "--max-drop finds by itself how much may go"),
        (("--form", "ffn", "--gates", "ste"), "--gates: ffn has none"),
        (("--granularity", "weight"), "whole units"),
    ],
)
def test_what_is_refused(invoke: Invoke, words: tuple[str, ...], said: str) -> None:
    done = invoke(*WORDS, *words, "--epochs", "1", "-o", "refused")
    assert done.code in (2, 3) and said in done.err, done.err
    assert "Traceback" not in done.err and not Path("refused").exists()


def test_a_network_without_a_stack(invoke: Invoke) -> None:
    resnet = ROOT / "sample_models" / "digits_resnet.safetensors"
    done = invoke(
        "retrain", str(resnet), "--arch", f"{ROOT}/sample_models/architectures.py:residual_cnn", "--mode", NAME,
        "--data", "digits", "--epochs", "1", "-o", "none",
    )  # fmt: skip
    assert done.code == 3 and "no stack to short-circuit" in done.err and "--conv" in done.err
