"""`compress check`, on a bundle that was really written: what passes, warns and fails, and with which exit code."""

from __future__ import annotations

import importlib
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch

from compress.errors import ModelError
from compress.measure import latency, latency_pair

measuring = importlib.import_module("compress.pipeline.measure")
networks = importlib.import_module("compress.latency.networks")
writing = importlib.import_module("compress.pipeline.writing")

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "check.schema.json").read_text("utf-8"))
TORCH = ("--runtime", "torch", "--runs", "5")  # nothing is exported, which takes seconds
Check = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Without a second of timing, and without the process that loads the result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "reloaded", lambda *_: 0.0)
        for module in (writing, networks, measuring):
            patch.setattr(module, "latency_pair", partial(latency_pair, min_seconds=0))
        for module in (networks, measuring):
            patch.setattr(module, "latency", partial(latency, min_seconds=0))
        patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, invoke: Callable[..., Any]) -> Path:
    """A folder with dense.pt and a bundle of it, halved: 64-32-10 to 64-16-10, 2,410 to 1,210 parameters."""
    folder = tmp_path_factory.mktemp("gate")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    torch.save(layers.state_dict(), folder / "dense.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = invoke(
            "prune", "dense.pt", "--arch", "mlp:64-32-10", "--ratio", "0.5", "--data", "digits", "--no-calibrate"
        )
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def check(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]) -> Check:
    """`compress check` in a folder of its own that has the bundle and the dense model; `gate` is a config."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, gate: str = "") -> Any:
        if gate:
            Path("gate.toml").write_text(gate)
        return invoke("check", *words, *(["--config", "gate.toml"] if gate else []))

    return run


def limits(done: Any) -> dict[str, dict[str, Any]]:
    document = json.loads(done.out)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return {each["name"]: each for each in document["limits"]}


EVERYTHING = """
max_bytes = "20kB"
max_params = 1210
max_macs = "1.2k"
min_accuracy = "1 %"
max_latency_p50 = "1s"
max_bytes_growth = { limit = "0 %", against = "original" }
max_params_growth = "-49 %"
max_macs_growth = "-50 %"
max_accuracy_drop = "50 %"
max_latency_ratio = 1000
"""


def test_everything_passes(check: Check) -> None:
    done = check("--json", gate=EVERYTHING)
    assert done.code == 0, done.err
    found = limits(done)
    assert {each["status"] for each in found.values()} == {"passed"} and len(found) == 10
    assert found["max_params"]["value"] == 64 * 16 + 16 + 16 * 10 + 10
    assert found["max_macs"]["value"] == 64 * 16 + 16 * 10
    assert found["max_bytes"]["value"] == Path("compressed/model.safetensors").stat().st_size
    assert found["max_params_growth"]["reference"] == 64 * 32 + 32 + 32 * 10 + 10
    assert found["min_accuracy"]["source"] == "report" and found["max_bytes"]["source"] == "now"
    report = json.loads(Path("compressed/report.json").read_text())
    assert found["min_accuracy"]["value"] == report["after"]["accuracy"]["accuracy"]
    assert json.loads(done.out)["original"] == "dense.pt"
    assert found["max_latency_ratio"]["value"] > 0 and "onnxruntime" in found["max_latency_ratio"]["note"]


@pytest.mark.parametrize(
    "limit",
    [
        "max_bytes=1kB",
        "max_params=1209",
        "max_macs=1183",
        "min_accuracy=99 %",
        "max_latency_p50=0.001us",
        "max_bytes_growth=-90 %",
        "max_params_growth=-50 %",
        "max_macs_growth=-51 %",
        "max_latency_ratio=0.0001",
    ],
)
def test_each_metric_can_fail(check: Check, limit: str) -> None:
    name = limit.partition("=")[0]
    done = check("--limit", limit, *TORCH)
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"error: 1 of 1 limit not met: {name}"
    assert done.out.splitlines()[1].startswith(f"failed  {name}")
    assert done.out.splitlines()[-1] == f"failed: {name}; 0 of 1 limit met."
    warned = check(*TORCH, gate=f'{name} = {{ limit = "{limit.partition("=")[2]}", level = "warn" }}')
    assert warned.code == 0 and warned.out.splitlines()[1].startswith(f"warned  {name}")


def test_a_drop_that_cannot_be_chance_fails(check: Check) -> None:
    """The original is made out to have been perfect."""
    report = json.loads(Path("compressed/report.json").read_text())
    report["before"]["accuracy"] |= {"correct": 360, "accuracy": 1.0, "low": 0.9894, "high": 1.0}
    Path("compressed/report.json").write_text(json.dumps(report))
    assert check("--limit", "max_accuracy_drop=1 %").code == 1


def test_accuracy_is_measured_where_there_is_data(check: Check) -> None:
    done = check("--data", "digits", "--json", gate='min_accuracy = "1 %"\nmax_accuracy_drop = "50 %"')
    assert done.code == 0, done.err
    found, report = limits(done), json.loads(Path("compressed/report.json").read_text())
    assert found["min_accuracy"]["source"] == "now"
    assert found["min_accuracy"]["value"] == report["after"]["accuracy"]["accuracy"]
    assert found["max_accuracy_drop"]["reference"] == report["before"]["accuracy"]["accuracy"]


def test_a_bundle_knows_how_its_data_was_normalised(check: Check, invoke: Callable[..., Any]) -> None:
    """A file of numbers does not: what was said when it was pruned holds for it and for its original."""
    words = ("dense.pt", "--arch", "mlp:64-32-10", "--data", "digits", "--mean", "0.3", "--std", "0.1", "-o", "small")
    assert invoke("prune", *words, "--ratio", "0.5", "--no-calibrate").code == 0
    report = json.loads(Path("small/report.json").read_text())
    done = invoke("eval", "small", "--data", "digits", "--json")
    assert json.loads(done.out)["accuracy"]["correct"] == report["after"]["accuracy"]["correct"]
    assert "Normalising as the file says: --mean 0.3 --std 0.1" in done.err
    found = limits(check("small", "--data", "digits", "--limit", "max_accuracy_drop=99 %", "--json"))
    assert found["max_accuracy_drop"]["reference"] == report["before"]["accuracy"]["accuracy"]
    plain = json.loads(invoke("eval", "small", "--data", "digits", "--mean", "0", "--std", "1", "--json").out)
    assert plain["accuracy"]["correct"] != report["after"]["accuracy"]["correct"]


def test_other_data_measures_the_original_too(check: Check) -> None:
    Path("half.py").write_text(
        "def load():\n    from sklearn.datasets import load_digits\n    d = load_digits()\n"
        "    return d.images[:100, None].astype('float32') / 16, d.target[:100]\n"
    )
    done = check("--data", "half.py:load", "--limit", "max_accuracy_drop=50 %", "--json")
    assert done.code == 0, done.err
    note = limits(done)["max_accuracy_drop"]["note"]
    assert note.startswith("sample by sample; ") and "of 100 right, half.py:load" in note
    Path("dense.pt").rename("gone.pt")
    refused = check("--data", "half.py:load", "--limit", "max_accuracy_drop=50 %")
    assert refused.code == 2 and "360 samples of digits" in refused.err
    against = ("--against", "gone.pt", "--arch", "mlp:64-32-10")
    assert check("--data", "half.py:load", "--limit", "max_accuracy_drop=50 %", *against).code == 0


def test_a_plain_model_has_sizes_and_an_original_that_is_named(check: Check) -> None:
    words = ("dense.pt", "--arch", "mlp:64-32-10", "--input-shape", "64")
    assert check(*words, "--limit", "max_params=2410").code == 0
    unknown = check(*words, "--limit", "min_accuracy=0.5")
    assert unknown.code == 2 and "the accuracy of dense.pt is not known" in unknown.err and "--data" in unknown.err
    growth = check(*words, "--limit", "max_params_growth=0")
    assert growth.code == 2 and "try: name the original: --against MODEL" in growth.err
    assert check(*words, "--against", "dense.pt", "--limit", "max_params_growth=0").code == 0


def test_the_original_takes_what_the_bundle_takes(check: Check, invoke: Callable[..., Any]) -> None:
    """Its file does not say it: the data did when it was pruned."""
    Path("net.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n\ndef build():\n"
        "    parts = {'flat': nn.Flatten(), '0': nn.Linear(64, 32), '1': nn.ReLU(), '2': nn.Linear(32, 10)}\n"
        "    return nn.Sequential(OrderedDict(parts))\n"
    )
    arch = ("--arch", "net.py:build")
    assert invoke("prune", "dense.pt", *arch, "--data", "digits", "--no-calibrate", "-o", "small").code == 0
    done = check("small", *arch, "--limit", "max_latency_ratio=1000", *TORCH)
    assert done.code == 0, done.err


def test_a_report_alone(check: Check) -> None:
    done = check("compressed/report.json", "--json", gate=EVERYTHING.replace("20kB", "21kB"))
    assert done.code == 0, done.err
    assert {each["source"] for each in limits(done).values()} == {"report"}
    for words in (("--data", "digits"), ("--against", "dense.pt", "--arch", "mlp:64-32-10")):
        refused = check("compressed/report.json", "--limit", "max_bytes=1GB", *words)
        assert refused.code == 2 and "nothing is measured" in refused.err


def test_the_baseline_from_its_beginning(check: Check) -> None:
    gate = 'baseline = "base.json"\nmax_bytes_growth = "1 %"\nmax_accuracy_drop = "1 %"\nmax_latency_ratio = 100\n'
    missing = check(*TORCH, gate=gate)
    assert missing.code == 2 and "--update-baseline" in missing.err
    first = check("--update-baseline", *TORCH, gate=gate)
    assert (first.code, first.out) == (0, "base.json is the new baseline.\n")
    written = Path("base.json").read_bytes()
    assert check(*TORCH, gate=gate).code == 0
    recorded = json.loads(written)
    assert recorded["latency"]["ratio"] > 0 and recorded["accuracy"]["data"] == "digits"
    Path("base.json").write_text(json.dumps({**recorded, "bytes": recorded["bytes"] * 9 // 10}))
    grown = check("--json", *TORCH, gate=gate)
    assert grown.code == 1 and limits(grown)["max_bytes_growth"]["status"] == "failed"
    assert check("--update-baseline", *TORCH, gate=gate).code == 0
    assert json.loads(Path("base.json").read_text())["bytes"] == recorded["bytes"]
    assert [p.name for p in Path().iterdir() if p.name.startswith(".")] == []


def test_absolute_limits_hold_while_the_baseline_is_written(check: Check) -> None:
    done = check("--update-baseline", "--baseline", "b.json", "--limit", "max_params=1")
    assert done.code == 1 and Path("b.json").exists()


def test_formats(check: Check) -> None:
    gate = 'max_params = 1\nmax_macs = "1M"\nmax_bytes = { limit = 1, level = "warn" }\n'
    told = check("--format", "json", gate=gate)
    assert told.code == 1 and limits(told)["max_params"]["status"] == "failed"
    suites = ElementTree.fromstring(check("--format", "junit", gate=gate).out)
    assert suites.tag == "testsuites" and suites.attrib["tests"] == "3" and suites.attrib["failures"] == "1"
    cases = {case.attrib["name"]: case for case in suites.iter("testcase")}
    assert set(cases) == {"max_params", "max_macs", "max_bytes"}
    failure = cases["max_params"].find("failure")
    assert failure is not None and "1,210 parameters" in failure.attrib["message"]
    assert cases["max_macs"].find("failure") is None and "warned" in (cases["max_bytes"].findtext("system-out") or "")
    page = check("--format", "markdown", gate=gate).out.splitlines()
    assert page[0] == "## compress check: failed"
    assert "| **failed** | `max_params` | at most 1 parameters | 1,210 parameters |  |  |" in page
    assert {line.count("|") for line in page if line.startswith("|")} == {7}
    assert check("--quiet", gate=gate).out == "failed\n"


def test_a_file_and_the_summary_of_a_job(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    done = check("--limit", "max_params=1M", "--format", "junit", "-o", "gate.xml")
    assert done.code == 0 and done.out.splitlines()[1].startswith("passed  max_params")
    assert ElementTree.parse("gate.xml").getroot().tag == "testsuites"
    assert Path("summary.md").read_text().startswith("before\n## compress check: passed\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "none/summary.md")
    told = check("--limit", "max_params=1M", "-o", "none/gate.xml")
    assert told.code == 2 and "none/gate.xml cannot be written" in told.err
    assert "cannot be written" in check("--limit", "max_params=1M").err


def test_what_onnx_runtime_cannot_run_is_timed_in_torch(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ModelError("no kernel for it")

    monkeypatch.setattr(measuring, "_in_onnxruntime", refuse)
    done = check("--limit", "max_latency_p50=1s", "--json")
    assert done.code == 0 and "ONNX Runtime cannot: no kernel for it" in done.err
    assert limits(done)["max_latency_p50"]["note"] == "torch, batch 1, 1 thread"
    assert check("--limit", "max_latency_p50=1s", "--runtime", "onnxruntime").code == 3


@pytest.mark.parametrize(
    ("words", "gate", "said"),
    [
        ((), 'max_bytes = { limit = 1, level = "off" }', "there is nothing to check: gate.toml sets no limit"),
        ((), "max_bites = 1", "did you mean 'max_bytes'"),
        (("--limit", "max_bytes"), "", "is not KEY=VALUE"),
        (("none",), "max_bytes = 1", "none does not exist"),
        (("--update-baseline",), "max_bytes = 1", "--baseline FILE.json"),
        (("--runs", "0"), "max_bytes = 1", "--runs must be at least 1"),
        (("--format", "xml"), "max_bytes = 1", "invalid value for '--format'"),
        (("--data", "npz:none.npz"), "min_accuracy = 0.5", "none.npz"),
        (("compressed/plan.json",), "max_bytes = 1", "has the schema 'compress.plan/1'"),
    ],
)
def test_what_is_wrong_is_never_a_failed_gate(check: Check, words: tuple[str, ...], gate: str, said: str) -> None:
    done = check(*words, gate=gate)
    assert done.code == 2, done.err
    assert said in done.err and "Traceback" not in done.err and done.out == ""


def test_no_config_at_all_and_no_bundle(check: Check) -> None:
    nothing = check()
    assert nothing.code == 2 and "there is nothing to check" in nothing.err and "pyproject.toml" in nothing.err
    Path("pyproject.toml").write_text("[tool.compress.check]\nmax_params = 1210\n")
    assert check().code == 0
    shutil.rmtree("compressed")
    gone = check()
    assert gone.code == 2 and "compressed does not exist" in gone.err


def test_a_report_of_another_model(check: Check) -> None:
    report = json.loads(Path("compressed/report.json").read_text())
    report["after"]["params"] += 1
    Path("compressed/report.json").write_text(json.dumps(report))
    done = check("--limit", "max_bytes=1MB")
    assert done.code == 2 and "is of a model with 1,211 parameters" in done.err
