"""Results that are no better than a guess are not handed over in silence, and the others are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.evaluate import Accuracy, Answers, accuracy_of
from compress.pipeline.doubts import doubts
from compress.recover import Trained

MLP = Path(__file__).resolve().parents[2] / "sample_models" / "digits_mlp.pt"
Invoke = Callable[..., Any]


def accuracy(right: int, counts: tuple[int, ...] = (40, 60)) -> Accuracy:
    """Of classes of these sizes, with so many of all samples right."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return accuracy_of(Answers(torch.arange(len(targets)) < right, torch.ones(len(targets))), targets)


@dataclass(frozen=True)
class Network:
    accuracy: Accuracy | None
    nonzero: int | None = 1000


def trained(best: int, *losses: float, diverged: bool = False) -> Trained:
    history = tuple({"epoch": i, "validation loss": loss} for i, loss in enumerate(losses))
    return Trained(torch.nn.Module(), history, best, 10, 10, "none", diverged=diverged)  # type: ignore[arg-type]


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    found = accuracy(69)
    assert found.chance == 0.6 and found.low == pytest.approx(0.594, abs=1e-3)  # Wilson, of 69 of 100
    assert found.at_chance and not accuracy(70).at_chance and accuracy(3).at_chance


GOOD, GUESS = Network(accuracy(95)), Network(accuracy(61))


def test_what_was_good_and_is_a_guess_now() -> None:
    (said,) = doubts(GOOD, GUESS, None)
    assert said.startswith("the result is no better than a guess: it puts 61.00 % of 100 test samples into the right")
    assert "60.00 % are of the same one" in said and "`compress finetune`" in said
    (said,) = doubts(GOOD, Network(accuracy(61), 40), None)
    assert "40 of 1,000 parameters are left that are not zero" in said and "a smaller --lam" in said
    (said,) = doubts(GOOD, GUESS, trained(2, 0.1, 3.0, 2.5))
    assert said.endswith("Try a lower --lr")
    (said,) = doubts(GOOD, GUESS, trained(2, 2.4, 2.3, 2.2))
    assert said.endswith("Try more --epochs, or another --lr")


def test_a_training_has_to_come_to_more_than_a_guess() -> None:
    assert len(doubts(GUESS, GUESS, trained(1, 2.4, 2.3))) == 1
    assert doubts(GUESS, GUESS, None) == ()  # nobody has made it worse
    (said,) = doubts(GOOD, GOOD, trained(0, 0.1, 3.0))
    assert said.startswith("no epoch of the training was better") and said.endswith("a lower --lr")
    assert doubts(GOOD, GOOD, trained(0, 0.1, diverged=True)) == ()  # which has been said


def test_what_is_harmless() -> None:
    nothing = Network(None)
    assert doubts(nothing, nothing, None) == doubts(GOOD, GOOD, trained(1, 0.1, 0.2)) == ()
    assert doubts(GOOD, Network(accuracy(75), 10), trained(3, 0.1, 2.0, 1.5, 1.0)) == ()  # much worse, and no guess


RETRAIN = ("retrain", str(MLP), "--data", "digits", "--epochs", "2")


def warnings_of(bundle: str) -> list[str]:
    return list(json.loads(Path(bundle, "report.json").read_text("utf-8"))["warnings"])


def test_a_training_that_blows_up_is_an_error(
    invoke: Invoke, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*RETRAIN, "--mode", "wiring", "--lr", "1e6")
    assert done.code == 2 and done.out == ""
    assert "error: nothing was learned: the weights blew up. On the validation samples the loss was 0.146" in done.err
    assert "try: a lower --lr" in done.err and not list(tmp_path.iterdir())


def test_a_training_that_leaves_nothing_is_warned_of(
    invoke: Invoke, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*RETRAIN, "--mode", "proximal", "--lam", "1e30")
    assert done.code == 0, done.err
    (said,) = warnings_of("compressed")
    assert "no better than a guess" in said and "87 of 50,610 parameters are left" in said
    assert f"warning: {said}" in done.err


def test_units_that_go_without_a_refit(
    invoke: Invoke, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then `compress finetune` says so only where it did not help."""
    monkeypatch.chdir(tmp_path)
    done = invoke("prune", str(MLP), "--ratio", "0.95", "--no-calibrate", "--data", "digits")
    assert done.code == 0 and "no better than a guess" in done.err, done.err
    assert len(warnings_of("compressed")) == 1
    words = ("finetune", "compressed", "--data", "digits")
    done = invoke(*words, "--epochs", "5", "--lr", "0.1", "-o", "better")
    assert done.code == 0 and warnings_of("better") == [] and "warning" not in done.err
    done = invoke(*words, "--epochs", "1", "--lr", "1e-9", "-o", "same")
    assert done.code == 0
    assert "Try more --epochs, or another --lr" in done.err and len(warnings_of("same")) == 1
