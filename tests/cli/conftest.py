"""The command line against a pipeline that only remembers what it was asked."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import compress
from compress.cli import main


@dataclass
class FakePipeline:
    """Answers with `answer`, or calls it where it is an exception's raiser."""

    answer: Any = None
    asked: list[Any] = field(default_factory=list)

    def __call__(self, request: Any, progress: Any) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@dataclass(frozen=True)
class Run:
    """What one command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """Stands in for `compress.pipeline`."""
    fake = FakePipeline()
    module = types.ModuleType("compress.pipeline")
    answered = ("inspect_model", "prune", "finetune_model", "evaluate_model", "measure_model", "export_model")
    for name in (*answered, "check", "search", "sensitivity"):
        setattr(module, name, fake)
    monkeypatch.setitem(sys.modules, "compress.pipeline", module)
    monkeypatch.setattr(compress, "pipeline", module, raising=False)
    return fake


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs a command in this process."""
    monkeypatch.setattr(sys, "warnoptions", ["default"])  # main leaves warnings as pytest has them

    def call(*words: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["compress", *words])
        code = main(words)
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return call


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file to name on the command line; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"weights")
    yield "model.pt"
