"""The commands as a user types them, and what can be checked of their result without this package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import onnxruntime
import pytest
import safetensors.torch
import torch

import compress
from compress.checkpoint.read import load_model
from compress.data import load_data

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_models"
RESNET = SAMPLES / "digits_resnet.safetensors"
ARCH = f"{SAMPLES}/architectures.py:residual_cnn"
DIGITS = ("--data", "digits")
ARCHITECTURES = {
    "digits_mlp.pt": (),
    "digits_resnet.safetensors": ("--arch", ARCH),
    "digits_mobile.pt": ("--arch", f"{SAMPLES}/architectures.py:mobile_cnn"),
    "digits_vit.pt2": (),
}

# In a process of its own, isolated from the folder, the environment and the samples' source: bundle, inputs, outputs
LOAD = """
import sys
sys.path[:0] = sys.argv[4:]
import safetensors.torch, compress
module = compress.load(sys.argv[1])
x = safetensors.torch.load_file(sys.argv[2])["x"]
safetensors.torch.save_file({"y": module(x).detach()}, sys.argv[3])
assert not [m for m in sys.modules if "architectures" in m or m.startswith("sample")]
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def report_of(bundle: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    return report


@dataclass(frozen=True)
class Half:
    """The residual network with half of its units, its export, and what the input file was before."""

    bundle: Path
    before: str

    @property
    def report(self) -> dict[str, Any]:
        return report_of(self.bundle)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, invoke: Callable[..., Any]) -> Iterator[Half]:
    bundle, before = tmp_path_factory.mktemp("half") / "small", digest(RESNET)
    done = invoke("prune", str(RESNET), "--arch", ARCH, "--ratio", "0.5", *DIGITS, "-o", str(bundle))
    assert done.code == 0, done.err
    exported = invoke("export", str(bundle), "--onnx")
    assert exported.code == 0, exported.err
    yield Half(bundle, before)


def test_two_commands_as_they_are_typed(tmp_path: Path) -> None:
    """`compress prune MODEL --method tetris --bin 500` and `compress export --onnx`, from an empty folder."""
    model = os.path.relpath(SAMPLES / "digits_mlp.pt", tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "plugins")))}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "compress", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    pruned = run("prune", model, "--method", "tetris", "--bin", "500")
    assert pruned.returncode == 0, pruned.stderr
    assert "parameters" in pruned.stdout and "compressed" in pruned.stdout
    exported = run("export", "--onnx")
    assert exported.returncode == 0, exported.stderr
    assert os.path.join("compressed", "model.onnx") in exported.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"compressed"}
    files = {"model.safetensors", "model.onnx", "plan.json", "recipe.toml", "report.json", "report.md", "report.html"}
    assert {p.name for p in (tmp_path / "compressed").iterdir()} >= files
    report = report_of(tmp_path / "compressed")
    assert report["command"] == ["compress", "prune", model, "--method", "tetris", "--bin", "500"]
    assert report["after"]["params"] < 0.6 * report["before"]["params"]
    assert (report["method"]["name"], report["method"]["options"]["bin"]) == ("tetris", 500)
    session = onnxruntime.InferenceSession(tmp_path / "compressed" / "model.onnx")
    x = torch.rand(5, 64)
    with torch.no_grad():
        expected = compress.load(tmp_path / "compressed")(x)
    (found,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_the_result_is_smaller_and_as_good(half: Half) -> None:
    before, after = half.report["before"], half.report["after"]
    # Half of the channels on both sides of every convolution: a quarter of its weights
    assert 0.24 < after["params"] / before["params"] < 0.27
    assert 0.24 < after["macs"] / before["macs"] < 0.27
    assert before["accuracy"]["accuracy"] > 0.99
    assert after["accuracy"]["accuracy"] >= 0.97
    assert 0 <= half.report["verification"]["slice"] < 1e-9
    assert half.report["verification"]["reload"] <= 1e-5


def test_the_input_is_not_touched(half: Half) -> None:
    assert digest(RESNET) == half.before == half.report["input"]["sha256"]


def test_the_bundle_loads_without_source_and_gives_the_same_in_onnx(half: Half, tmp_path: Path) -> None:
    data = load_data("digits")
    x = data.test.inputs[:40]
    module = load_model(half.bundle).module
    with torch.no_grad():
        expected = module(x)
    assert float((expected.argmax(1) == data.test.targets[:40]).float().mean()) > 0.9
    safetensors.torch.save_file({"x": x}, tmp_path / "x.safetensors")
    # Only what is installed, and a copy of the package without the samples beside it
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "compress").symlink_to(Path(compress.__file__).parent)
    places = [str(tmp_path / "path"), *{str(Path(m.__file__ or "").parents[1]) for m in (torch, safetensors)}]
    arguments = [half.bundle, tmp_path / "x.safetensors", tmp_path / "y.safetensors"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, *map(str, arguments), *places],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(
        safetensors.torch.load_file(tmp_path / "y.safetensors")["y"], expected, rtol=0, atol=1e-5
    )
    session = onnxruntime.InferenceSession(half.bundle / "model.onnx")
    for count in (1, 5):
        (found,) = session.run(None, {"input": x[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected[:count], rtol=0, atol=1e-5)


def test_files_shrink_with_the_parameters(half: Half, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """A file is its float32 values and a description of the graph, which is as long for few channels as for many.

    Measured, beside four bytes for each of 169,834 and 42,938 parameters: 10.9 and 9.9 kB in model.safetensors, 4.2
    and 5.1 kB in model.onnx. So at most 14 kB, and the small file is the share of the parameters (25.3 %) of the
    large one up to 1.5 points: 26.3 % and 25.9 % were measured.
    """
    done = invoke("export", str(RESNET), "--arch", ARCH, "--onnx", "--safetensors", "-o", str(tmp_path), "-q")
    assert done.code == 0, done.err
    parameters = [half.report[side]["params"] for side in ("before", "after")]
    for name in ("model.safetensors", "model.onnx"):
        sizes = [(tmp_path / name).stat().st_size, (half.bundle / name).stat().st_size]
        for size, count in zip(sizes, parameters, strict=True):
            assert 0 < size - 4 * count < 14_000, (name, size, count)
        assert sizes[1] / sizes[0] == pytest.approx(parameters[1] / parameters[0], abs=0.015), name


def test_the_report_is_what_the_schema_says(half: Half) -> None:
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(half.report)
    recipe = tomllib.loads((half.bundle / "recipe.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(half.report["recipe"]) == recipe
    assert recipe["prune"]["budget"] == {"kind": "ratio", "value": 0.5}


@pytest.mark.usefixtures("fast")
def test_the_plan_alone_is_enough_to_repeat_the_slice(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", str(RESNET), "--arch", ARCH, "--ratio", ".5", *DIGITS, "--no-calibrate")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "b" / "plan.json").read_text(encoding="utf-8"))
    assert plan["schema"] == "compress.plan/1"
    found = safetensors.torch.load_file(tmp_path / "b" / "model.safetensors")
    original = safetensors.torch.load_file(RESNET)
    assert set(plan["kept"]) <= set(original)
    for name, tensor in original.items():
        for dim, kept in plan["kept"].get(name, {}).items():
            assert kept == sorted(set(kept))
            tensor = tensor.index_select(int(dim), torch.tensor(kept))
        assert torch.equal(found.pop(name), tensor), name
    assert not found
    assert plan["kept"]["blocks.2.conv2.weight"].keys() == {"0", "1"}
    assert len(plan["kept"]["head.weight"]["1"]) == 32


@pytest.mark.usefixtures("fast")
def test_the_same_command_writes_the_same_bytes(half: Half, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", str(RESNET), "--arch", ARCH, "--ratio", "0.5", *DIGITS)
    assert invoke(*words, "-o", str(tmp_path / "again")).code == 0
    for name in ("model.safetensors", "plan.json", "recipe.toml"):
        assert digest(tmp_path / "again" / name) == digest(half.bundle / name), name
    other = ("-m", "random", "--seed", "1", "--no-calibrate", "-o", str(tmp_path / "other"))
    assert invoke(*words, *other).code == 0
    assert digest(tmp_path / "other" / "plan.json") != digest(half.bundle / "plan.json")


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("file", ARCHITECTURES)
def test_every_sample_stays_accurate_without_a_third_of_its_units(
    file: str, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    words = ("prune", str(SAMPLES / file), *ARCHITECTURES[file], "--ratio", ".3", *DIGITS)
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    report = report_of(tmp_path / "b")
    assert report["after"]["accuracy"]["accuracy"] >= 0.95
    assert report["after"]["params"] < 0.6 * report["before"]["params"]
    assert report["verification"]["slice"] < 1e-9
    asked = invoke("eval", str(tmp_path / "b"), *DIGITS, "-q")
    assert float(asked.out) == pytest.approx(report["after"]["accuracy"]["accuracy"], abs=1e-6)


@pytest.mark.usefixtures("fast")
def test_a_kept_module_is_saved_in_its_own_names(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", str(RESNET), "--arch", ARCH, "--ratio", ".5", *DIGITS, "--keep-module", "-q")
    done = invoke(*words, "-o", str(tmp_path / "b"))
    assert done.code == 0, done.err
    state = safetensors.torch.load_file(tmp_path / "b" / "module.safetensors")
    plan = json.loads((tmp_path / "b" / "plan.json").read_text(encoding="utf-8"))
    assert len(plan["kept"]["stem.0.weight"]["0"]) == 16
    built = load_model(RESNET, arch=ARCH, arch_args=None).module.__class__((16, 32), 10)
    assert built.load_state_dict(state).missing_keys == []
    x = load_data("digits").test.inputs[:8]
    with torch.no_grad():
        torch.testing.assert_close(built.eval()(x), compress.load(tmp_path / "b")(x), rtol=0, atol=1e-4)
    # A later run without it takes the file away again
    assert invoke(*[w for w in words if w != "--keep-module"], "-o", str(tmp_path / "b")).code == 0
    assert not (tmp_path / "b" / "module.safetensors").exists()


@pytest.mark.usefixtures("fast")
def test_an_older_bundle_goes_and_files_of_others_stay(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    target = tmp_path / "b"
    words = ("prune", str(SAMPLES / "digits_mlp.pt"), "-q", "-o", str(target))
    assert invoke(*words).out == f"{target}\n"
    first = digest(target / "model.safetensors")
    (target / "model.onnx").write_bytes(b"of the older network")
    assert invoke(*words, "--ratio", "0.6").code == 0
    assert digest(target / "model.safetensors") != first
    assert not (target / "model.onnx").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    words = (*words[:-1], str(other))
    refused = invoke(*words)
    assert refused.code == 2
    assert "--force" in refused.err
    assert [p.name for p in other.iterdir()] == ["notes.txt"]
    assert invoke(*words, "--force").code == 0
    assert (other / "notes.txt").read_text() == "mine"
    assert (other / "model.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_bundle_is_pruned_further_inspected_and_measured(
    half: Half, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any], fast: None
) -> None:
    monkeypatch.chdir(tmp_path)
    again = invoke("prune", str(half.bundle), *DIGITS, "--ratio", ".25", "-o", "smaller", "--json")
    assert again.code == 0, again.err
    report = json.loads(again.out)
    assert report["before"]["params"] == half.report["after"]["params"]
    assert report["after"]["params"] < 0.65 * report["before"]["params"]
    assert report["after"]["accuracy"]["accuracy"] > 0.9
    seen = json.loads(invoke("inspect", "smaller", "--json").out)
    assert seen["parameters"] == report["after"]["params"]
    assert seen["macs"] == report["after"]["macs"]
    assert seen["form"] == "bundle"
    raced = json.loads(invoke("measure", str(half.bundle), "--against", "smaller", "--runs", "3", "--json").out)
    assert [m["macs"] for m in raced["models"]] == [half.report["after"]["macs"], report["after"]["macs"]]
    assert raced["ratio"] > 0
    assert float(invoke("eval", "smaller", *DIGITS, "-q").out) > 0.9
