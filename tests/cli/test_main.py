"""Exit codes, errors and help."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compress import __version__
from compress.cli import application
from compress.errors import CompressError, GateFailed, InputError, ModelError, PluginError

Call = Callable[..., Any]
COMMANDS = (
    "inspect", "methods", "sensitivity", "search", "prune", "retrain", "finetune", "eval", "measure", "export", "check",
    "compare", "init", "run",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def test_version(run: Call) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"compress {__version__}\n")


def test_help_without_a_command(run: Call) -> None:
    done = run()
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_and_the_shared_options(run: Call, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert f"compress {command}" in done.out.split("Examples")[1]
    for flag in (
        "--json",
        "--quiet",
        "--verbose",
        "--no-progress",
        "--color",
        "--seed",
        "--device",
        "--debug",
    ):
        assert flag in done.out


def _examples() -> Iterator[list[str]]:
    for command in application().registered_commands:
        lines = (line.strip() for line in (inspect.getdoc(command.callback) or "").splitlines())
        yield from (shlex.split(line)[1:] for line in lines if line.startswith("compress "))


@pytest.mark.parametrize("words", list(_examples()), ids=" ".join)
def test_examples_can_be_typed_where_the_sample_models_are(
    run: Call, pipeline: Any, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with any of them, up to the point where a model would be opened."""
    monkeypatch.chdir(tmp_path)
    Path("sample_models").symlink_to(ROOT / "sample_models")
    Path("compressed").mkdir()
    if words[0] == "check":
        Path("compressed/report.json").touch()
        Path("gate.toml").write_text("max_bytes = 1\n")
    elif words[0] == "run":
        assert run("init", words[1], "--model", "sample_models/digits_mlp.pt").code == 0
    pipeline.answer = ModelError("reached")
    done = run(*words)
    if words[0] in ("methods", "init") or "--dry-run" in words:
        assert done.code == 0, done.err
    elif words[0] == "compare":  # reads reports, and there are none
        assert done.code == 2 and done.err.startswith("error: small ")
    else:
        assert (done.code, done.err.splitlines()[-1]) == (3, "error: reached")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["prun"], "error: no such command 'prun'. Did you mean 'prune'", "compress --help"),
        (["zzz"], "error: no such command 'zzz'", "compress --help"),
        (["methods", "--jsn"], "error: no such option: --jsn", "did you mean --json?"),
        (["inspect"], "error: missing argument 'MODEL'", "compress inspect --help"),
        (["methods", "--color", "blue"], "error: invalid value for '--color'", "compress methods --help"),
        (["methods", "-qv"], "error: --quiet and --verbose contradict each other", "leave one"),
        (
            ["inspect", "no/such.pt"],
            "error: no/such.pt does not exist",
            "MODEL is a checkpoint file or a bundle",
        ),
        (["measure", "--runs"], "error: option '--runs' requires an argument", "compress measure --help"),
    ],
)
def test_usage_errors(run: Call, words: list[str], error: str, hint: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert done.out == ""
    first, second = done.err.splitlines()[0], done.err.splitlines()[-1]
    assert first.startswith(error)
    assert second == f"  try: {hint}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateFailed("limit"), 1),
        (InputError("input"), 2),
        (ModelError("model"), 3),
        (PluginError("plugin"), 4),
        (CompressError("other"), 4),
    ],
)
def test_exit_codes(run: Call, pipeline: Any, checkpoint: str, error: CompressError, code: int) -> None:
    pipeline.answer = error
    done = run("inspect", checkpoint)
    assert (done.code, done.out, done.err) == (code, "", f"error: {error}\n")


def test_the_unexpected_is_one_line(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = RuntimeError("went wrong\nand how")
    done = run("inspect", checkpoint)
    assert done.code == 4
    assert done.err == (
        "error: internal: RuntimeError: went wrong\n  try: run again with --debug for the traceback\n"
    )
    with pytest.raises(RuntimeError, match="went wrong"):
        run("inspect", checkpoint, "--debug")


def test_interrupts(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = KeyboardInterrupt()
    assert run("inspect", checkpoint).code == 130


def test_the_module_runs_too() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "compress", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"compress {__version__}\n"


def test_color(run: Call, checkpoint: str) -> None:
    assert run("inspect", "none", "--color", "always").err.startswith("\033[1;31merror:\033[0m")
    assert run("inspect", "none", "--color=never").err.startswith("error:")
