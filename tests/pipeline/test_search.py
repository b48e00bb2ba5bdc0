"""`compress search`, from a file to the smallest bundle that holds a floor."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch

import compress
from compress.budget.scope import fractions
from compress.data import load_data
from compress.evaluate import evaluate
from compress.graph import Coupling, analyse, parameters, trace
from compress.pipeline.bench import Ready
from compress.plugin import Context
from compress.recover.samples import divided

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "sample_models" / "digits_mlp.pt"
# The package gives its function the name of this module
searching = importlib.import_module("compress.pipeline.search")
Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def search(invoke: Invoke, *words: str, trials: int = 12) -> Any:
    return invoke("search", str(MLP), "--data", "digits", "--trials", str(trials), *words)


def document(folder: str = "compressed") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "search.json").read_text("utf-8"))
    return found


def test_the_smallest_that_holds_is_written_as_it_was_judged(invoke: Invoke) -> None:
    done = search(invoke, "--max-drop", "0.7")
    assert done.code == 0, done.err
    found = document()
    jsonschema.validate(found, json.loads((ROOT / "docs" / "search.schema.json").read_text()))
    trials = {each["number"]: each for each in found["trials"]}
    best, floor = trials[found["best"]], found["floor"]["accuracy"]
    assert len(trials) == 12 and floor == pytest.approx(1.0 - 0.007)
    assert (
        best["size"] == min(t["size"] for t in trials.values() if t["accuracy"] >= floor) < 0.5 * found["whole"]["size"]
    )
    assert found["front"] == [t["number"] for t in front_by_hand(found["trials"])] and found["best"] in found["front"]
    # The bundle is that candidate: the same widths, and the same accuracy on samples that it has not seen
    report = json.loads(Path("compressed/report.json").read_text())
    assert (report["after"]["macs"], report["after"]["params"]) == (best["macs"], best["params"])
    assert found["written"]["validation"] == best["accuracy"] >= floor
    train = load_data("digits").fit_to((64,)).train
    assert train is not None
    judged = evaluate(compress.load("compressed"), divided(train, 0.1)[1])
    assert judged.accuracy == found["written"]["validation"] and judged.count == found["validation"]["samples"] == 144
    assert found["written"]["test"]["after"] == report["after"]["accuracy"]["accuracy"]
    assert report["verification"]["slice"] < 1e-9
    recipe = tomllib.loads(Path("compressed/recipe.toml").read_text())["prune"]
    assert recipe["kept_out"] == 0.1 and list(recipe["ratio_of"].values()) == best["fractions"]
    assert "warning" not in done.err
    # The page says both accuracies
    for share in (found["written"]["validation"], found["written"]["test"]["after"]):
        assert f"{100 * share:.2f} %" in done.out
    assert "written" in done.out and "compress export compressed --onnx" in done.out
    assert "## What was removed" in Path("compressed/search.md").read_text()
    assert Path("compressed/pareto.svg").read_text().startswith("<?xml")
    whole = Path("compressed/report.html").read_text()
    assert "<h2>The search</h2>" in whole and "Class by class" in whole


def front_by_hand(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def beaten(one: dict[str, Any]) -> bool:
        def better(other: dict[str, Any]) -> bool:
            no_worse = other["size"] <= one["size"] and other["accuracy"] >= one["accuracy"]
            same = (other["size"], other["accuracy"]) == (one["size"], one["accuracy"])
            return no_worse and (not same or other["number"] < one["number"])

        return any(better(other) for other in trials)

    return sorted((t for t in trials if not beaten(t)), key=lambda t: t["size"])


def test_it_goes_on_with_its_study_and_replaces_its_bundle(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search(invoke, "--max-drop", "2", "--seed", "3", trials=9).code == 0
    first, weights = document(), Path("compressed/model.safetensors").read_bytes()
    made: list[Any] = []
    judge = searching._Judge.__call__

    def counted(self: Any, choice: Any) -> Any:
        made.append(choice)
        return judge(self, choice)

    monkeypatch.setattr(searching._Judge, "__call__", counted)
    again = search(invoke, "--max-drop", "2", "--seed", "3", trials=9)
    assert again.code == 0 and not made and "9 of 9 trials are there" in again.err
    assert document() == first and Path("compressed/model.safetensors").read_bytes() == weights
    assert search(invoke, "--max-drop", "2", "--seed", "3", trials=11).code == 0
    assert len(made) == 2 and document()["trials"][:9] == first["trials"]
    other = search(invoke, "--max-drop", "3", "--seed", "3", trials=11)
    assert other.code == 2 and "is that of another search (floor: 0.98 there, 0.97 here)" in other.err


def test_processes_share_a_storage(invoke: Invoke) -> None:
    words = ("--max-drop", "1", "--storage", "sqlite:///shared.db", "--study", "mlp")
    command = [sys.executable, "-m", "compress", "search", str(MLP), "--data", "digits", *words]
    run = subprocess.run(
        [*command, "--trials", "4", "-o", "one"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "warning" not in run.stderr.lower() and "optuna" not in run.stderr.lower()
    assert search(invoke, *words, "-o", "two", trials=6).code == 0
    one, two = document("one"), document("two")
    assert len(one["trials"]) == 4 and len(two["trials"]) == 6 and two["trials"][:4] == one["trials"]
    assert not Path("one.search").exists() and not Path("two.search").exists()


def test_a_latency_is_measured_once_on_the_threads_that_were_asked_for(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Model:
        def __init__(self, coupling: Coupling, *, threads: int) -> None:
            asked.append(threads)
            self.coupling = coupling

        def predict(self, alive: Any) -> float:
            return 1e-9 * parameters(self.coupling, alive)

    monkeypatch.setattr("compress.search.objectives.tables", Model)
    done = search(invoke, "--max-drop", "1", "--objective", "latency", "--threads", "2", trials=3)
    assert done.code == 0, done.err
    assert asked == [2]
    found = document()["trials"]
    assert [t["size"] for t in found] == [pytest.approx(1e-9 * t["params"]) for t in found]
    words = ("--max-drop", "1", "--objective", "latency", "--threads", "1", "--storage", "sqlite:///s.db")
    assert search(invoke, *words, "-o", "one", trials=1).code in (0, 3)
    other = search(invoke, *words[:5], "2", *words[6:], "-o", "two", trials=1)
    assert other.code == 2 and "threads: 1 there, 2 here" in other.err


def test_a_floor_that_nothing_holds(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.search.space.RATIOS", (0.8, 0.9))
    done = search(invoke, "--max-drop", "0", "--objective", "params", trials=2)
    assert done.code == 3
    assert "none of 2 candidates holds 100.00 %: the most accurate has" in done.err and "parameters (" in done.err
    found = document("compressed.search")
    assert len(found["trials"]) == 2 and found["best"] is None and found["written"] is None
    assert Path("compressed.search/pareto.svg").exists() and not Path("compressed").exists()


def test_candidates_that_fail_are_told(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no kernel for this width")

    monkeypatch.setattr("compress.search.bench.slice_graph", broken)
    done = search(invoke, "--max-drop", "1", trials=3)
    assert done.code == 3 and "none of 3 candidates could be judged: RuntimeError: no kernel for this width" in done.err
    assert [each["accuracy"] for each in document("compressed.search")["trials"]] == [None] * 3


def test_it_is_led_by_sensitivities_and_chooses_among_methods(invoke: Invoke) -> None:
    assert invoke("sensitivity", str(MLP), "--data", "digits", "--ratios", ".5", "-o", "s").code == 0
    done = search(invoke, "--max-drop", "1", "--sensitivity", "s", "--methods", "dependency,random", trials=8)
    assert done.code == 0, done.err
    found = document()
    assert [t["start"] for t in found["trials"]][2] == "dependency, by sensitivity, as small as 20 %"
    uniform, led = found["trials"][1], found["trials"][2]
    assert led["size"] <= uniform["size"] and led["fractions"][1] > uniform["fractions"][1]  # 3 is the robust one
    assert (found["methods"], found["sensitivity"]) == (["dependency", "random"], "s")
    file = json.loads(Path("s/sensitivity.json").read_text())
    Path("s/sensitivity.json").write_text(json.dumps({**file, "sha256": "0" * 64}))
    other = search(invoke, "--max-drop", "1", "--sensitivity", "s", "-o", "other")
    assert other.code == 2 and "another file than" in other.err


def test_the_winner_alone_is_trained(invoke: Invoke) -> None:
    done = search(invoke, "--max-drop", "3", "--epochs", "1", "--batch-size", "256", trials=8)
    assert done.code == 0, done.err
    report, found = json.loads(Path("compressed/report.json").read_text()), document()
    assert [entry["epoch"] for entry in report["history"]] == [0, 1] and report["data"]["train"] == 1437 - 144
    best = next(t for t in found["trials"] if t["number"] == found["best"])
    assert found["written"]["validation"] >= best["accuracy"]  # the best epoch is chosen on the same samples


class Doubled(torch.nn.Module):
    """The residual stream answers to the names of all layers that add to it, and so does the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.inner, self.last = (torch.nn.Linear(n, m) for n, m in ((4, 6), (8, 6), (6, 8), (14, 2)))

    def forward(self, x: Any) -> Any:
        stream = self.a(x).relu()
        inner = self.inner(stream).relu()
        return self.last(torch.cat([stream + self.b(inner), inner], 1))


def test_every_family_gets_its_own_share() -> None:
    context = Context(analyse(trace(Doubled().eval(), (torch.randn(2, 4),))))
    ready = Ready(*cast(Any, (None, None, context, None)))
    wanted = [0.125 * (i + 1) for i in range(len(context.clusters))]
    assert len(wanted) > 1 and fractions(context.coupling, context.clusters, ready.ratios(wanted)) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--min-accuracy", "0.98", "--objective", "energy"), "--objective"),
        (("--min-accuracy", "0.98", "--methods", "tetris"), "tetris decides by itself what goes"),
        (("--min-accuracy", "0.98", "--storage", "nowhere"), "--storage nowhere"),
        (("--min-accuracy", "0.98", "--sensitivity", "missing.json"), "--sensitivity missing.json"),
        (("--min-accuracy", "0.98", "-o", str(MLP.parent)), "is left alone"),
    ],
)
def test_wrong_input(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = search(invoke, *words)
    assert done.code == 2 and message in done.err, done.err


def test_a_floor_above_the_model_itself(invoke: Invoke, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    example = (torch.rand(2, 1, 8, 8),)
    torch.export.save(torch.export.export(network.eval(), example), "untrained.pt2")
    done = invoke("search", "untrained.pt2", "--data", "digits", "--min-accuracy", "0.9")
    assert done.code == 2 and "the model itself has" in done.err and "a lower --min-accuracy" in done.err


def test_an_interrupt_ends_it_and_keeps_what_is_known(invoke: Invoke) -> None:
    command = [sys.executable, "-m", "compress", "search", str(MLP), "--data", "digits", "--max-drop", "1"]
    running = subprocess.Popen(
        [*command, "--trials", "100000"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        # A shell makes what it runs in the background deaf to Ctrl-C, tests and their children included
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    limit = time.monotonic() + 60
    from compress.search import trials_of

    def done() -> int:
        import optuna

        try:
            return len(
                trials_of(optuna.load_study(study_name="search", storage="sqlite:///compressed.search/study.db"))
            )
        except Exception:  # it is not there yet
            return 0

    while time.monotonic() < limit and not done() and running.poll() is None:
        time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "kept: the same command goes on" in err and "interrupted" in err
    kept = done()
    assert kept >= 1 and not Path("compressed").exists()
    assert search(invoke, "--max-drop", "1", trials=max(kept, 3)).code == 0
    assert len(document()["trials"]) == max(kept, 3)
