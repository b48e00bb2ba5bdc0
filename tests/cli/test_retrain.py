"""`compress retrain`: its help, and what it refuses before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]


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
