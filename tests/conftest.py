"""Settings for every test: one thread, so that tests may run side by side. And the command line as a function."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """What tests draw without a seed of their own is the same in every run, so that none fails now and then."""
    import torch

    torch.manual_seed(0)


@dataclass(frozen=True)
class Done:
    """What one command left behind."""

    code: int
    out: str
    err: str


def _invoke(*words: str) -> Done:
    from compress.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        # Warnings stay as pytest has them
        mock.patch.object(sys, "warnoptions", ["default"]),
        mock.patch.object(sys, "argv", ["compress", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(words)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Done]:
    """Runs a command in this process, from the current directory."""
    return _invoke


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that write a bundle time the two networks for an instant."""
    from compress.measure import latency_pair

    brief = partial(latency_pair, min_seconds=0, min_runs=2)
    monkeypatch.setattr(importlib.import_module("compress.pipeline.writing"), "latency_pair", brief)


@pytest.fixture
def fast(briefly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they load what they wrote in no process of its own: for tests in which neither is the point."""
    for name in ("writing", "finetune"):
        monkeypatch.setattr(importlib.import_module(f"compress.pipeline.{name}"), "reloaded", lambda *_: 0.0)
