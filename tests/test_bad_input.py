"""Whatever is wrong with what a user gives: one message, the right exit code, and nothing is written."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from compress.checkpoint.bundle import read_metadata
from compress.checkpoint.write import bundle_bytes
from compress.graph import trace

# The package gives its function the name of this module
pruning = importlib.import_module("compress.pipeline.prune")
SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"
MLP, MOBILE = SAMPLES / "digits_mlp.pt", SAMPLES / "digits_mobile.pt"
Refuse = Callable[..., str]


class Foreign:
    """What a pickle would import."""


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]) -> Refuse:
    """Runs a command that must fail with `code`; what it said. The working directory is `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(words: str, code: int = 2) -> str:
        before = listing(tmp_path)
        done = invoke(*shlex.split(words.format(mlp=MLP, mobile=MOBILE, samples=SAMPLES)))
        said = str(done.err)
        assert done.code == code, said
        assert done.out == ""
        assert said.count("error: ") == 1, said
        assert "Traceback" not in said
        assert listing(tmp_path) == before
        return said[said.index("error: ") :]

    return run


def jpeg() -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(200)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "model.pt is empty (0 bytes)"),
        (jpeg(), "model.pt is a JPEG image, not a checkpoint"),
        (b"<html><body>404</body></html>", "model.pt is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"nothing that anyone knows", "model.pt is not a checkpoint"),
        (pickle.dumps({"a": 1}, protocol=4), "a plain pickle"),
        (MLP.read_bytes()[:60_000], "truncated or damaged"),
        (MLP.read_bytes()[:10], "truncated or damaged"),
    ],
    ids=["empty", "jpeg", "html", "lfs", "text", "pickle", "cut zip", "head of a zip"],
)
def test_files_that_are_no_checkpoint(content: bytes, said: str, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    assert said in refuse("prune model.pt")


@pytest.mark.parametrize("command", ["prune", "inspect", "eval --data digits", "measure", "export"])
def test_a_file_that_is_not_there(command: str, refuse: Refuse) -> None:
    assert refuse(f"{command} nowhere.pt").startswith("error: nowhere.pt does not exist\n  try: ")


def test_a_directory(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "folder is a directory without model.safetensors" in refuse("prune folder")


def test_a_pickle_with_a_class_of_its_own(refuse: Refuse, tmp_path: Path) -> None:
    torch.save({"model": Foreign()}, tmp_path / "model.pt")
    said = refuse("prune model.pt")
    assert "Loading it would import and run" in said
    assert "Foreign" in said
    assert "--trust-pickle" in said


def test_weights_that_fit_no_architecture(refuse: Refuse, tmp_path: Path) -> None:
    torch.save({"stem.kernel": torch.randn(3, 4, 5), "head.w": torch.randn(7)}, tmp_path / "model.pt")
    assert "--arch" in refuse("prune model.pt")


def test_weights_that_do_not_fit_the_architecture(refuse: Refuse) -> None:
    assert "the weights do not fit mlp:64-20-10" in refuse("prune {mlp} --arch mlp:64-20-10")


def test_code_that_a_file_names_is_not_run(refuse: Refuse) -> None:
    assert "Code that a file names is not run unasked" in refuse("inspect {samples}/digits_resnet.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method tetriss", "no method 'tetriss'\n  try: did you mean 'tetris'?"),
        ("--method tetris --bins 5", "no option --bins, neither of this command nor of method 'tetris'\n"),
        ("--method tetris --bins 5", "did you mean '--bin'"),
        ("--method tetris --bin 0", "--bin: must lie between 1 and 1,000,000, got 0"),
        ("--method tetris --bin many", "--bin: 'many' is not a whole number"),
        ("--method tetris --pmin mim", "did you mean 'min'"),
        ("--ratio 1.5", "--ratio must be between 0 and 1, got 1.5\n  try: --ratio 0.015 removes 1.5 %"),
        ("--ratio 0", "--ratio must be between 0 and 1"),
        ("--macs half", "--macs: 'half' is not an amount"),
        ("--macs 0.5 --params 0.5", "--macs and --params are budgets and only one can be met"),
        ("--only 'conv*'", "no prunable layer matches 'conv*'"),
        ("--exclude 33", "no prunable layer matches '33'\n  try: did you mean 3"),
        ("--granularity weight", "dependency scores whole units"),
        ("--method tetris --granularity weight --keep-module", "--keep-module belongs to whole units"),
        ("--data digit", "there is no such data\n  try: did you mean 'digits'?"),
        ("--data npz:none.npz", "no such file: none.npz"),
        ("--mean .5 --std .5", "--mean and --std say how to read data, and there is none"),
        ("--input-shape 3,4", "the model cannot take inputs of 3x4"),
        ("--input-shape wide", "--input-shape: 'wide' is not a shape"),
        ("--arch-args 7", "--arch-args: '7' is not a JSON object"),
        ("--seed -1", "--seed must be between 0"),
        ("--threads 0", "--threads must be at least 1"),
        ("--device gpu", "--device 'gpu' is unknown"),
        ("--device cuda:9", "--device cuda:9: "),
        ("--quiet --verbose", "--quiet and --verbose contradict each other"),
        ("other.pt", "one MODEL at a time"),
    ],
)
def test_options(words: str, said: str, refuse: Refuse) -> None:
    assert said in refuse("prune {mlp} " + words)


def test_a_command_that_does_not_exist(refuse: Refuse) -> None:
    said = refuse("prun {mlp}")
    assert "no such command 'prun'" in said
    assert "prune" in said.partition("'prun'")[2]


def test_a_wrong_input_shape_is_no_matter_of_tracing(refuse: Refuse) -> None:
    for command in ("inspect", "measure", "export --onnx -o out"):
        said = refuse(command + " {mobile} --arch {samples}/architectures.py:mobile_cnn --input-shape 64")
        assert "the model cannot take inputs of 64 (float32)" in said
        assert "--input-shape" in said


def test_an_input_shape_that_nobody_says(refuse: Refuse) -> None:
    said = refuse("inspect {mobile} --arch {samples}/architectures.py:mobile_cnn")
    assert "the input shape of" in said
    assert "--input-shape 3,224,224" in said


def test_data_of_another_shape(refuse: Refuse, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_test=np.zeros((4, 3, 5), np.float32), y_test=np.zeros(4, np.int64))
    assert "the data has samples of 3x5, the model takes 64" in refuse("eval {mlp} --data npz:data.npz")


def test_labels_that_the_model_does_not_know(refuse: Refuse, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_test=np.zeros((4, 64), np.float32), y_test=np.full(4, 10))
    assert "the model tells 10 classes apart, the labels go up to 10" in refuse("eval {mlp} --data npz:data.npz")


def test_two_models_with_different_inputs_are_not_raced(refuse: Refuse) -> None:
    said = refuse("measure {mlp} --against {samples}/digits_vit.pt2")
    assert "digits_mlp.pt takes 64" in said
    assert "digits_vit.pt2 takes 1x8x8" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["prune", "eval --data digits", "measure"])
def test_a_gpu_that_is_not_there(command: str, refuse: Refuse) -> None:
    said = refuse(command + " {mlp} --device cuda")
    assert said.startswith("error: --device cuda: no CUDA device was found\n  try: --device cpu")


def test_a_method_that_prunes_nothing(refuse: Refuse) -> None:
    said = refuse("prune {mlp} --method tetris --pmin min", code=3)
    assert said.startswith("error: tetris prunes nothing on this model\n  try: ")


def test_a_budget_that_needs_no_pruning_or_cannot_be_met(refuse: Refuse) -> None:
    assert "prunes nothing" in refuse("prune {mlp} --params 1M", code=3)
    assert "--params 10 cannot be met" in refuse("prune {mlp} --params 10", code=3)


def test_an_output_that_holds_other_files(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    said = refuse("prune {mlp} -o notes")
    assert "notes is not empty and not a bundle, so it is left alone" in said
    assert "--force" in said


def test_an_output_that_is_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "taken is a file" in refuse("prune {mlp} -o taken")
    assert "taken/below cannot be made" in refuse("prune {mlp} -o taken/below")
    assert "taken/below cannot be" in refuse("export {mlp} --onnx -o taken/below")


def test_an_output_where_nobody_may_write(refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    # The superuser may write anywhere, so that the answer of the system is given for it
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked")
    assert "locked is not a writable directory" in refuse("prune {mlp} -o locked/small")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no file system here refuses everyone")
def test_an_output_that_fails_when_it_is_written(refuse: Refuse) -> None:
    assert "/proc/nobody" in refuse("export {mlp} --onnx -o /proc/nobody")


def test_the_model_is_not_replaced_by_its_result(refuse: Refuse, tmp_path: Path) -> None:
    bundle(tmp_path / "small")
    for words in ("prune small -o small", "prune small/model.safetensors -o ./small"):
        assert "small holds the model itself, which would be replaced" in refuse(words)
    assert "small/model.safetensors is the model itself" in refuse("export small --safetensors")


def bundle(folder: Path, **metadata: str) -> None:
    """A bundle of one layer, or what is left of it when `metadata` replaces its own."""
    folder.mkdir()
    torch.manual_seed(0)
    program = trace(torch.nn.Linear(4, 3).eval(), (torch.randn(2, 4),))
    content = bundle_bytes(program.module, [{"shape": [4], "dtype": "float32"}], None, {})
    if metadata:
        length = int.from_bytes(content[:8], "little")
        own = json.loads(content[8 : 8 + length])["__metadata__"]
        changed = {**own, **{key.replace("_", "."): text for key, text in metadata.items()}}
        content = safetensors.torch.save(safetensors.torch.load(content), changed)
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"compress_schema": "compress.bundle/9"}, "has the schema 'compress.bundle/9'"),
        ({"compress_graph": '{"nodes": '}, "its metadata 'compress.graph' is damaged"),
        ({"compress_graph": "zlib:AAAA"}, "its metadata 'compress.graph' is damaged"),
        ({"compress_inputs": "4"}, "its metadata 'compress.inputs' is damaged"),
        ({"compress_graph": "[]"}, "error: "),
        ({"compress_graph": '{"schema": "compress.graph/1", "nodes": [{}]}'}, "error: "),
    ],
)
def test_a_damaged_bundle(metadata: dict[str, str], said: str, refuse: Refuse, tmp_path: Path) -> None:
    bundle(tmp_path / "small", **metadata)
    assert said in refuse("measure small")


def test_a_bundle_cut_short(refuse: Refuse, tmp_path: Path) -> None:
    bundle(tmp_path / "small")
    file = tmp_path / "small" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    assert "model.safetensors" in refuse("eval small --data digits")


def test_a_graph_that_asks_for_more_than_operators(refuse: Refuse, tmp_path: Path) -> None:
    bundle(tmp_path / "small")
    file = tmp_path / "small" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
    graph = read_metadata(file)["graph"]
    (node,) = (node for node in graph["graph"]["nodes"] if node["op"] == "call_function")
    node["target"] = "os.system"
    safetensors.torch.save_file(tensors, file, {**metadata, "compress.graph": json.dumps(graph)})
    assert "os.system" in refuse("inspect small")


def test_an_interrupted_run_leaves_no_half_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("compress.pipeline.writing"), "reloaded", interrupt)
    done = invoke("prune", str(MLP), "-o", "small")
    assert (done.code, done.out) == (130, "")
    assert done.err.endswith("error: interrupted\n")
    assert listing(tmp_path) == {}


def test_an_error_of_our_own_names_the_way_to_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pruning, "analysed", fail)
    said = refuse("prune {mlp}", code=4)
    assert said == "error: internal: ZeroDivisionError: by zero\n  try: run again with --debug for the traceback\n"


def test_no_word_of_all_this_reaches_a_finished_bundle(refuse: Refuse, tmp_path: Path) -> None:
    """A run that fails leaves an older bundle in its place as it was."""
    bundle(tmp_path / "compressed")
    shutil.copy(MLP, tmp_path / "model.pt")
    refuse("prune model.pt --method tetris --pmin min", code=3)
    refuse("prune model.pt --only 9")
