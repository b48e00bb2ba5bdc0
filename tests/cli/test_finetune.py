"""`compress finetune` and the training of `compress prune`: what they ask the pipeline, and how they answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.errors import Elsewhere
from compress.evaluate import Accuracy
from compress.report import InputFile, Measures, Method, build_report
from compress.request import DataSource, FinetuneRequest, ModelSource
from compress.result import Finetuned
from compress.training import Running, Training

Call = Callable[..., Any]


def finetuned(stopped: str = "") -> Finetuned:
    before, after = Accuracy(50, 100, 0.5, 0.4, 0.6, ()), Accuracy(88, 100, 0.88, 0.8, 0.93, ())
    report = build_report(
        command=("compress", "finetune", "model.pt"),
        seed=0,
        device="cpu",
        input=InputFile("model.pt", "0" * 64, 4200, "bundle", "graph"),
        method=Method("finetune"),
        before=Measures(1000, accuracy=before),
        after=Measures(1000, accuracy=after),
        history=({"epoch": 0}, {"epoch": 1}, {"epoch": 2}),
    )
    return Finetuned(Path("tuned"), 2, stopped, report)


def test_what_is_asked_by_default(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = finetuned()
    done = run("finetune", checkpoint, "--data", "digits")
    assert done.code == 0
    (request,) = pipeline.asked
    assert request == FinetuneRequest(
        ModelSource(Path(checkpoint)),
        DataSource("digits"),
        Path("finetuned"),
        command=("compress", "finetune", checkpoint, "--data", "digits"),
    )
    for text in ("50.00 %", "88.00 %", "+38.00 points", "weights of epoch 2 of 2", "compress eval tuned --data digits"):
        assert text in done.out
    assert "parameters" not in done.out  # they are as many


def test_everything_that_can_be_asked(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = finetuned("no better epoch than 2 in 10")
    words = (
        "--epochs 3 --lr .1 --optimizer adamw --batch-size 16 --precision bf16 --augment flip --distill features "
        "--resume --momentum .5 --no-nesterov --weight-decay .01 --schedule constant --warmup .2 --accumulate 2 "
        "--label-smoothing .1 --validation .2 --patience 4 --temperature 2 --distill-weight .5 --save-every 9 "
        "--clip-norm .3 --tensorboard log -o out --force --seed 5"
    )
    done = run("finetune", checkpoint, "--data", "digits", "--teacher", checkpoint, "--arch", "m.py:b", *words.split())
    assert done.code == 0 and "weights of epoch 2: no better epoch than 2 in 10" in done.out
    (request,) = pipeline.asked
    assert request.training == Training(
        3, 0.1, "adamw", 0.5, False, 0.01, "constant", 0.2, 16, 2, "bf16", 0.1, "flip", 0.2, 4, "features", 2.0, 0.5,
        clip_norm=0.3,
    )  # fmt: skip
    assert request.running == Running(True, 9, Path("log"))
    assert request.teacher == request.model == ModelSource(Path(checkpoint), "m.py:b")
    assert (request.output, request.force, request.settings.seed) == (Path("out"), True, 5)


def test_quiet_and_json(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = finetuned()
    assert run("finetune", checkpoint, "--data", "digits", "--quiet").out == "tuned\n"
    assert '"history"' in run("finetune", checkpoint, "--data", "digits", "--json").out


def test_data_is_needed(run: Call, pipeline: Any, checkpoint: str) -> None:
    done = run("finetune", checkpoint)
    assert done.code == 2 and "error: finetune needs --data" in done.err and not pipeline.asked


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--epochs", "-1"), "--epochs must be at least 1, got -1"),
        (("--epochs", "0", "--resume"), "--resume goes on with a training, and there is none"),
        (("--epochs", "2"), "--epochs trains on data, and there is none"),
    ],
)
def test_prune_refuses(run: Call, pipeline: Any, checkpoint: str, words: tuple[str, ...], error: str) -> None:
    done = run("prune", checkpoint, *words)
    assert done.code == 2 and f"error: {error}" in done.err and not pipeline.asked


def test_prune_trains_where_asked(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = Elsewhere("")
    assert run("prune", checkpoint, "--data", "digits").code == 0
    assert run("prune", checkpoint, "--data", "digits", "--epochs", "4", "--lr", "0.5", "--resume").code == 0
    without, request = pipeline.asked
    assert without.training is None
    assert (request.training, request.running) == (Training(epochs=4, lr=0.5), Running(resume=True))


def test_other_processes_are_silent(run: Call, pipeline: Any, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    pipeline.answer = Elsewhere("the main process writes the result")
    done = run("finetune", checkpoint, "--data", "digits")
    assert (done.code, done.out, done.err) == (0, "", "")
    pipeline.answer = KeyboardInterrupt()
    assert run("finetune", checkpoint, "--data", "digits").code == 130
