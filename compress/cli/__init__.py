"""The command line: one file per command, and one table from what goes wrong to an exit code.

Nothing here imports torch; a command's file is imported when the command is typed, and the pipeline when the
command's arguments are known to be right.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from compress import __version__
from compress.cli.output import output_of
from compress.errors import CompressError, Elsewhere

_OK, _USAGE, _INTERNAL, _INTERRUPTED = 0, 2, 4, 130

# Commands and their files, in the order of `compress --help`
_FILES = {
    "inspect": "inspect",
    "methods": "methods",
    "sensitivity": "sensitivity",
    "search": "search",
    "prune": "prune",
    "retrain": "retrain",
    "finetune": "finetune",
    "eval": "evaluate",
    "measure": "measure",
    "export": "export",
    "check": "check",
    "compare": "compare",
    "init": "run",
    "run": "run",
}


def application(words: Sequence[str] = ()) -> typer.Typer:
    """The command that ``words`` begin with, ready to be called; every command where they begin with none.

    One alone starts in two thirds of the time, as most of it goes into the options of all of them.
    """
    app = typer.Typer(
        name="compress",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog="Each command has examples: compress prune --help")(_compress)
    command = _command(words)
    for file in dict.fromkeys([_FILES[command]] if command else _FILES.values()):
        importlib.import_module(f"compress.cli.{file}").add_to(app)
    return app


def _command(words: Sequence[str]) -> str:
    """The command that the words begin with; "" where they begin with none."""
    return words[0] if words and words[0] in _FILES else ""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compress {__version__}")
        raise typer.Exit


def _compress(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Make trained PyTorch models physically smaller, verify the result and report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 done, 1 gate failed, 2 usage or input wrong, 3 model cannot be handled, 4 internal or plugin error,
    130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug = "--debug" in words
    if not (debug or sys.warnoptions or {"-v", "--verbose"} & set(words)):
        warnings.simplefilter("ignore")  # those of libraries; ours are told by Output.warn
    try:
        code = application(words)(words, prog_name="compress", standalone_mode=False)
        if code == _INTERRUPTED:  # typer makes an exit code of it
            raise KeyboardInterrupt
        return code if isinstance(code, int) else _OK
    except Elsewhere:
        return _OK
    except KeyboardInterrupt:
        output_of(words).error("interrupted")
        return _INTERRUPTED
    except Exception as error:  # the last stop of every error
        if debug and not _is_usage(error):
            raise
        return _report(error, words)


def _report(error: Exception, words: Sequence[str]) -> int:
    output = output_of(words)
    if isinstance(error, CompressError):
        output.failure(error)
        return error.exit_code
    if _is_usage(error):
        message, hint = _usage(error, words)
        output.error(message, hint)
        return _USAGE
    first_line = str(error).strip().partition("\n")[0]
    output.error(
        f"internal: {type(error).__name__}: {first_line}".removesuffix(": "),
        "run again with --debug for the traceback",
    )
    return _INTERNAL


def _is_usage(error: Exception) -> bool:
    # Typer's errors of usage have no public base class in every version; they all have this.
    return hasattr(error, "format_message")


def _usage(error: Any, words: Sequence[str]) -> tuple[str, str]:
    """Message and hint for a command line that typer refused."""
    context = getattr(error, "ctx", None)
    help_for = context.command_path if context else f"compress {_command(words)}".strip()
    near = getattr(error, "possibilities", None)
    if near and "Did you mean" not in error.message:
        return _lowered(error.message), f"did you mean {' or '.join(near)}?"
    return _lowered(error.format_message()), f"{help_for} --help"


def _lowered(message: str) -> str:
    text = message.strip().rstrip(".").replace("Value error, ", "")  # of a check of ours, in the words of typer
    return text[:1].lower() + text[1:]
