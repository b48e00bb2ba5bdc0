"""The one place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, TextIO, TypeVar

from compress.errors import CompressError

T = TypeVar("T")
Color = Literal["auto", "always", "never"]

_STYLES = {"error": "\033[1;31m", "warning": "\033[1;33m", "try": "\033[36m", "step": "\033[1m"}
_PLAIN_INTERVAL = 10.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Output:
    """How to speak to the user. Also the `Progress` that the stages of the pipeline report to."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    color: Color = "auto"
    main: bool = True  # of several processes, one speaks; errors come from all

    def result(self, data: Mapping[str, Any], human: str, quiet: str) -> None:
        """Writes what the command was asked for: as JSON, as a text, or in its shortest form."""
        if not self.main:
            return
        shown = quiet if self.quiet else human
        print(json.dumps(data, indent=2, allow_nan=False) if self.json else shown, flush=True)

    def step(self, text: str) -> None:
        """A stage begins."""
        if self.main and not self.quiet:
            self._say(self._styled("step", text))

    def detail(self, text: str) -> None:
        """Something that only `--verbose` shows."""
        if self.main and self.verbose:
            self._say(f"  {text}")

    def warn(self, text: str) -> None:
        """Something went otherwise than the user may expect."""
        if self.main:
            self._say(f"{self._styled('warning', 'warning:')} {text}")

    def error(self, message: str, hint: str = "") -> None:
        """What went wrong and what to do next."""
        self._say(f"{self._styled('error', 'error:')} {message}")
        if hint:
            self._say(f"  {self._styled('try', 'try:')} {hint}")

    def failure(self, error: CompressError) -> None:
        """The error that ends the command."""
        self.error(str(error), error.hint)

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """Passes `items` on: under a bar with the time left on a terminal, else with a line now and then."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self.quiet or not (self.progress and self.main):
            yield from items
        elif sys.stderr.isatty():
            yield from self._bar(items, text, total)
        else:
            yield from self._lines(items, text, total)

    def _bar(self, items: Iterable[T], text: str, total: int | None) -> Iterator[T]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(file=sys.stderr, no_color=not self._colored(sys.stderr))
        with Progress(*columns, console=console, transient=True) as progress:
            yield from progress.track(items, total=total, description=text)

    def _lines(self, items: Iterable[T], text: str, total: int | None) -> Iterator[T]:
        start = said = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - said >= _PLAIN_INTERVAL:
                said = now
                left = f", {(now - start) / done * (total - done):.0f} s left" if total else ""
                self._say(f"  {text}: {done}{f' of {total}' if total else ''}{left}")
            yield item

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _styled(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}\033[0m" if self._colored(sys.stderr) else text

    def _colored(self, stream: TextIO) -> bool:
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def output_of(arguments: Sequence[str]) -> Output:
    """The output to report an error on when the command line itself may be what is wrong."""
    color: Color = "auto"
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        choice = following if word == "--color" else word.removeprefix("--color=")
        if choice == "always":
            color = "always"
        elif choice == "never":
            color = "never"
    return Output(color=color)
