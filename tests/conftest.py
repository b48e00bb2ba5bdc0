"""Settings for every test: one thread, so that tests may run side by side. And the command line as a function."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


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
