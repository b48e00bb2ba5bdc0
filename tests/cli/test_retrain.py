"""`compress retrain`: its help, and what it refuses before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MLP = (str(SAMPLES / "digits_mlp.pt"),)
CNN = (str(SAMPLES / "digits_resnet.safetensors"), "--arch", f"{SAMPLES / 'architectures.py'}:residual_cnn")


def test_the_help_lists_what_a_training_takes(run: Call) -> None:
    """An option that is always refused has no place in it."""
    told, of_prune = (run(command, "--help").out for command in ("retrain", "prune"))
    for flag in ("--latency", "--prune-inputs", "--method", "--round-to", "--steps", "--allocation"):
        assert flag in of_prune and flag not in told
    for flag in ("--mode", "--ratio", "--macs", "--params", "--bytes", "--granularity", "--from-scratch"):
        assert flag in told


def test_a_search_trains_afterwards_alone(run: Call) -> None:
    told = " ".join(run("search", "--help").out.split())
    assert "--epochs" in told and "kind retrain" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--latency", "0.5"), "no option --latency in a training: a method prunes before the result can be timed"),
        (("--latency=8ms",), "try: --macs 0.5 is counted beforehand"),
        (("--prune-inputs",), "no option --prune-inputs in a training: a training reads all inputs"),
        (("--method", "wiring"), "try: --mode NAME"),
        (("-m", "wiring"), "no option -m in a training"),
        (("--round-to", "8"), "no option --round-to, neither of this command nor of method 'annealing'"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_options_of_prune(run: Call, checkpoint: str, words: tuple[str, ...], said: str, first: bool) -> None:
    placed = (*words, checkpoint) if first else (checkpoint, *words)
    done = run("retrain", *placed, "--data", "digits")
    assert (done.code, done.out) == (2, "") and said in done.err, done.err
    assert done.err.count("error: ") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*MLP, "--mode", "wirng"), 2, "--mode wirng: there is no such mode\n  try: did you mean 'wiring'?"),
        ((*MLP, "--mode", "wiring", "--nodes", "5"), 2, "of method 'wiring'\n  try: --nodes belongs to standout."),
        ((*MLP, "--mode", "wiring", "--ratio", "1.5"), 2, "--ratio must be between 0 and 1, got 1.5"),
        ((*MLP, "--mode", "wiring", "--keep", "0"), 2, "--keep: must be above 0 and below 1, got 0"),
        (
            (*MLP, "--mode", "wiring", "--keep", "0.2", "--ratio", "0.5"),
            2,
            "--keep and --ratio both say how much stays",
        ),
        (
            (*MLP, "--mode", "wiring", "--data", "folder:empty"),
            2,
            "--data folder: empty has no folders in it\n  try: expected train/",
        ),
        ((*MLP, "wiring"), 2, "one MODEL at a time, got"),
        (
            (*MLP, "--mode", "standout", "--nodes", "5000"),
            2,
            "no layer with a gate has more units: 1 has 300, 3 has 100",
        ),
        ((*MLP, "--mode", "dsc", "--params", "2"), 3, "--params 2 cannot be met"),
        ((*MLP, "--mode", "wiring", "--macs", "0.5"), 3, "zeros change nothing about --macs"),
        ((*MLP, "--mode", "adjacency"), 3, "no adjacency matrix"),
        ((*MLP, "--mode", "slim"), 3, "no units can be switched off by the scales of batch norms"),
        ((*MLP, "--mode", "diffsparse", "--on", "blocks"), 3, "blocks compete, and 0 residual branches were found"),
        ((*CNN, "--mode", "dsc"), 3, "--conv takes stacks of convolutions as well"),
        ((*CNN, "--mode", "standout"), 3, "try: --conv puts gates behind convolutions, too"),
    ],
)
def test_typed_wrongly(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    """One error that tells what to do, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run("retrain", *words, *(() if "--data" in words else ("--data", "digits")))
    assert (done.code, done.out) == (code, "") and said in done.err, done.err
    assert done.err.count("error: ") == done.err.count("  try: ") == 1 and "Traceback" not in done.err
    assert [each.name for each in tmp_path.rglob("*")] == ["empty"]


def test_without_data(run: Call, checkpoint: str) -> None:
    done = run("retrain", checkpoint, "--mode", "wiring")
    assert done.code == 2 and f"retrain needs --data\n  try: compress retrain {checkpoint} --data digits" in done.err
