"""`compress prune --latency`, with clocks that count weights: what is asked, met, measured and written."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from compress.errors import ModelError
from compress.latency import tables
from compress.latency.layers import Layer
from compress.latency.timer import Whole
from compress.measure import Latency, LatencyPair

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]


class Clock:
    """A nanosecond for every weight of two dims."""

    def layer(self, layer: Layer, weight_bytes: int) -> float:
        return 1e-9 * math.prod(layer.shapes[1])

    def network(self, module: nn.Module, inputs: Sequence[Tensor]) -> Whole:
        return Whole(_seconds(module), 3, 0.0, 0.0)


def _seconds(module: nn.Module) -> float:
    return 1e-9 * sum(p.numel() for p in module.parameters() if p.dim() > 1)


def _pair(first: nn.Module, second: nn.Module, *_: Any, **__: Any) -> LatencyPair:
    times = [Latency(s, s, 20, 1, 1, "onnxruntime") for s in (_seconds(first), _seconds(second))]
    return LatencyPair(times[0], times[1], times[0].p50 / times[1].p50, times[0].p50 / times[1].p50)


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def running(module: nn.Module, *_: Any) -> Iterator[nn.Module]:
        yield module

    monkeypatch.chdir(tmp_path)
    quick, writing = (importlib.import_module(f"compress.pipeline.{name}") for name in ("quick", "writing"))
    monkeypatch.setattr(quick, "tables", partial(tables, timer=Clock()))
    monkeypatch.setattr(writing, "reloaded", lambda *_: 0.0)
    monkeypatch.setattr(writing, "measured_pair", _pair)
    monkeypatch.setattr("compress.latency.rounds.running", running)
    monkeypatch.setattr("compress.latency.rounds.in_turns", _pair)


@pytest.mark.parametrize(("asked", "value", "limit"), [("0.6", 0.6, 0.6 * 50.2), ("20us", 20.0, 20.0)])
def test_a_budget_is_met_and_told(invoke: Invoke, asked: str, value: float, limit: float) -> None:
    done = invoke("prune", str(MLP), "--latency", asked, "-o", "quick")
    assert done.code == 0, done.err
    report = json.loads(Path("quick", "report.json").read_text("utf-8"))
    assert report["method"]["budget"]["kind"] == "latency"
    assert report["method"]["budget"]["target"] == pytest.approx(limit)  # microseconds
    assert 0.95 * limit <= report["method"]["budget"]["reached"] <= limit
    assert report["after"]["latency"]["runtime"] == "onnxruntime"
    assert 1e6 * report["after"]["latency"]["p50"] <= limit
    recipe = tomllib.loads(Path("quick", "recipe.toml").read_text("utf-8"))
    assert recipe["prune"]["budget"] == {"kind": "latency", "value": value}
    assert "latency, median (onnxruntime, batch 1, 1 thread)" in done.out and "ms of at most" in done.out


def test_what_is_measured_in_rounds_is_scored_once(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks take a fifth longer than was predicted, so a second round has to aim lower."""

    def slower(first: nn.Module, second: nn.Module, *_: Any, **__: Any) -> LatencyPair:
        pair = _pair(first, second)
        return LatencyPair(pair.before, pair.after, pair.speedup / 1.2, pair.speedup / 1.2)

    monkeypatch.setattr("compress.latency.rounds.in_turns", slower)
    words = ("--latency", "0.6", "--data", "digits", "--method", "activation")
    done = invoke("prune", str(MLP), *words, "-v", "-o", "quick")
    assert done.code == 0, done.err
    assert done.err.count("predicted") == 2
    report = json.loads(Path("quick", "report.json").read_text("utf-8"))
    assert 0.95 / 1.2 * 0.6 * 50.2 <= report["method"]["budget"]["reached"] <= 0.6 * 50.2 / 1.2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--latency", "0.6", "--target", "none"), 2, "--latency is measured on a target"),
        (("--latency", "0.6", "--target", "cuda"), 2, "no CUDA device was found"),
        (("--latency", "8"), 2, "has no unit"),
        (("--latency", "8ms", "--ratio", "0.3"), 2, "only one can be met"),
        (("--latency", "1us", "--only", "1"), 3, "--latency 0.001ms cannot be met: the smallest allowed widths"),
        (("--latency", "0.5", "--method", "magnitude", "--granularity", "weight"), 3, "latency"),
    ],
)
def test_what_cannot_be_is_refused(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    if "cuda" in words:
        monkeypatch.setattr(importlib.import_module("compress.pipeline.quick"), "tables", tables)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = invoke("prune", str(MLP), *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not Path("compressed").exists()


TRAINED = ("--latency", "0.6", "--data", "digits", "--epochs", "1", "--no-calibrate", "-o", "quick")
UNITS = Path("quick.training", "units.json")


def test_what_was_timed_serves_the_run_that_goes_on(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before its result is there, it is not timed again; afterwards nothing is left of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("compress.pipeline.prune"), "write", interrupt)
        assert invoke("prune", str(MLP), *TRAINED).code == 130
    kept = json.loads(UNITS.read_text("utf-8"))
    monkeypatch.setattr("compress.latency.rounds.in_turns", interrupt)
    done = invoke("prune", str(MLP), *TRAINED, "--resume")
    assert done.code == 0, done.err
    assert not UNITS.parent.exists()
    report = json.loads(Path("quick", "report.json").read_text("utf-8"))
    gone = {group["name"]: group["before"] - group["after"] for group in report["groups"]}
    assert gone == {name: len(units) for name, units in kept["removed"].items()} and any(gone.values())
    budget = report["method"]["budget"]
    assert 0.95 * budget["target"] <= budget["reached"] <= budget["target"] == kept["microseconds"]


def test_what_was_timed_goes_with_a_training_that_fails(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could go on from it: no state was saved."""

    def fails(*_: Any, **__: Any) -> None:
        assert UNITS.is_file()
        raise ModelError("it cannot be trained")

    monkeypatch.setattr(importlib.import_module("compress.pipeline.training"), "finetune", fails)
    done = invoke("prune", str(MLP), *TRAINED)
    assert (done.code, "it cannot be trained" in done.err) == (3, True), done.err
    assert not UNITS.parent.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"microseconds": 3.0, "removed": 1}', '{"removed": {}}'])
def test_what_was_timed_and_damaged(invoke: Invoke, text: str) -> None:
    UNITS.parent.mkdir()
    UNITS.write_text(text)
    done = invoke("prune", str(MLP), *TRAINED, "--resume")
    assert (done.code, "units.json is damaged" in done.err) == (2, True), done.err


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
