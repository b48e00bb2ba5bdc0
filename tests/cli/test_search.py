"""`compress search` and `compress sensitivity`: what they ask the pipeline, and how they answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.evaluate import Accuracy, ClassAccuracy
from compress.report import InputFile, Measures, Method, build_report
from compress.request import DataSource, ModelSource, Settings
from compress.result import Searched, Sensitivities
from compress.search import Family, Point, Sensitivity
from compress.searching import Floor, Scope, SearchRequest, SensitivityRequest
from compress.training import Running, Training

Call = Callable[..., Any]


def searched() -> Searched:
    report = build_report(
        command=("compress", "search", "model.pt"),
        seed=0,
        device="cpu",
        input=InputFile("model.pt", "0" * 64, 4200, "bundle", "graph"),
        method=Method("dependency"),
        before=Measures(1000),
        after=Measures(500),
    )
    sizes = {"units": 4, "macs": 600, "params": 500, "bytes": 2000, "size": 600.0, "start": "", "reason": ""}
    trial = {"number": 7, "method": "dependency", "fractions": [0.25, 0.5], "accuracy": 0.985, **sizes}
    failed = {**trial, "number": 8, "accuracy": None, "fractions": [], "reason": "no kernel"}
    document = {
        "floor": {"kind": "max-drop", "value": 0.5, "accuracy": 0.98},
        "validation": {"samples": 200, "accuracy": 0.985},
        "whole": {"units": 10, "macs": 1000, "params": 1000, "bytes": 4000, "size": 1000.0},
        "trials": [trial, failed],
        "front": [7],
        "best": 7,
        "written": {"bundle": "small", "validation": 0.985, "test": {"before": 0.97, "after": 0.96}},
    }
    return Searched(Path("small"), report, document)


def test_what_is_asked_by_default(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = searched()
    done = run("search", checkpoint, "--data", "digits", "--max-drop", "0.5")
    assert done.code == 0, done.err
    (request,) = pipeline.asked
    assert request == SearchRequest(
        ModelSource(Path(checkpoint)),
        DataSource("digits"),
        Path("compressed"),
        Floor("max-drop", 0.5),
        command=("compress", "search", checkpoint, "--data", "digits", "--max-drop", "0.5"),
    )
    for text in (
        "written  7      dependency         40.0 %  25 to 50 %  600 (60.0 %)  500 (50.0 %)   98.50 %",
        "2 candidates, 1 of which failed, on 200 validation samples, where the original has 98.50 % and the floor is",
        "Written: 98.50 % on the validation samples; 96.00 % on the test samples (original: 97.00 %).",
        "small/search.md",
        "compress eval small --data digits",
    ):
        assert text in done.out, done.out


def test_everything_that_can_be_asked(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = searched()
    words = (
        "--min-accuracy .98 --objective params --methods dependency,taylor --trials 9 --timeout 60 "
        "--storage sqlite:///x --study mine --sensitivity s.json --samples 50 --only a --exclude b --prune-outputs "
        "--allow-frozen -o out --force --seed 3 --epochs 2 --lr .1 --resume"
    )
    assert run("search", checkpoint, "--data", "digits", *words.split()).code == 0
    (request,) = pipeline.asked
    assert (request.floor, request.objective, request.methods) == (
        *(Floor("min-accuracy", 0.98), "params", ("dependency", "taylor")),
    )
    assert (request.trials, request.timeout, request.storage, request.study) == (9, 60.0, "sqlite:///x", "mine")
    assert (request.sensitivity, request.samples) == (Path("s.json"), 50)
    assert request.scope == Scope(("a",), ("b",), True, True)
    assert (request.output, request.force, request.settings) == (Path("out"), True, Settings(3))
    assert (request.training, request.running) == (Training(2, 0.1), Running(True))


def test_quiet_and_json(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = searched()
    words = ("search", checkpoint, "--data", "digits", "--max-drop", "1")
    assert run(*words, "--quiet").out == "small\n"
    assert '"front"' in run(*words, "--json").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-drop 1", "search needs --data"),
        ("--data digits", "the search needs a floor"),
        ("--data digits --max-drop 1 --min-accuracy .9", "--min-accuracy and --max-drop are both a floor"),
        ("--data digits --min-accuracy 98", "--min-accuracy must be above 0 and at most 1, got 98"),
        ("--data digits --max-drop -1", "--max-drop must be from 0 to below 100, got -1"),
        ("--data digits --max-drop 1 --trials 0", "--trials must be at least 1, got 0"),
        ("--data digits --max-drop 1 --samples 0", "--samples must be at least 1, got 0"),
        ("--data digits --max-drop 1 --timeout 0", "--timeout must be above 0 seconds, got 0"),
        ("--data digits --max-drop 1 --methods taylor,taylor", "--methods 'taylor,taylor': each method once"),
        ("--data digits --max-drop 1 --objective weight", "'weight' is not one of"),
        ("--data digits --max-drop 1 --resume", "--resume goes on with a training, and there is none"),
    ],
)
def test_nonsense_is_refused(run: Call, pipeline: Any, checkpoint: str, words: str, message: str) -> None:
    done = run("search", checkpoint, *words.split())
    assert done.code == 2 and message in done.err and not pipeline.asked


def sensitivities() -> Sensitivities:
    points = (Point(0.1, 2, 0.5), Point(0.5, 10, None, "no kernel"))
    return Sensitivities(
        *(Path("out"), Path("model.pt"), "0" * 64, "digits", "dependency", False, 0),
        *(Accuracy(3, 4, 0.75, 0.3, 0.95, (ClassAccuracy(3, 4),)), (0.1, 0.5)),
        (Sensitivity(Family("conv", ("conv", "shortcut"), 20, 10), points),),
    )


def test_sensitivity_asks_and_answers(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = sensitivities()
    done = run("sensitivity", checkpoint, "--data", "digits")
    assert done.code == 0, done.err
    (request,) = pipeline.asked
    assert request == SensitivityRequest(
        ModelSource(Path(checkpoint)),
        DataSource("digits"),
        Path("sensitivity"),
        command=("compress", "sensitivity", checkpoint, "--data", "digits"),
    )
    assert "family     units  -10 %   -50 %\nconv (+1)     20  50.00  failed" in done.out
    assert "4 validation samples, 75.00 with nothing cut (95 % interval 30.0 to 95.0)" in done.out
    assert "out/sensitivity.svg" in done.out
    assert '"compress.sensitivity/1"' in run("sensitivity", checkpoint, "--data", "digits", "--json").out
    assert run("sensitivity", checkpoint, "--data", "digits", "--quiet").out == "out\n"


def test_everything_that_sensitivity_can_be_asked(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = sensitivities()
    words = "-m taylor --ratios .2,.4 --samples 9 --calibrate -o out --force --only a --exclude b --seed 2"
    assert run("sensitivity", checkpoint, "--data", "digits", *words.split()).code == 0
    (request,) = pipeline.asked
    assert (request.method, request.ratios, request.samples, request.calibrate) == ("taylor", (0.2, 0.4), 9, True)
    assert (request.output, request.force, request.settings.seed) == (Path("out"), True, 2)
    assert request.scope == Scope(("a",), ("b",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ratios .5", "sensitivity needs --data"),
        ("--data digits --ratios 0", "--ratios must be between 0 and 1, got 0"),
        ("--data digits --ratios .5,30", "--ratios must be between 0 and 1, got 30"),
        ("--data digits --ratios .5,.5", "--ratios names a share twice"),
        ("--data digits --ratios a", "--ratios: 'a' is not a list of numbers"),
        ("--data digits --samples 0", "--samples must be at least 1, got 0"),
    ],
)
def test_what_sensitivity_refuses(run: Call, pipeline: Any, checkpoint: str, words: str, message: str) -> None:
    done = run("sensitivity", checkpoint, *words.split())
    assert done.code == 2 and message in done.err and not pipeline.asked
