"""What a running stage tells its caller. The command line shows it; a library user may ignore it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Receives news from the pipeline. Stages never print."""

    def step(self, text: str) -> None:
        """A stage begins."""

    def detail(self, text: str) -> None:
        """Something that only a curious user wants to know."""

    def warn(self, text: str) -> None:
        """Something went otherwise than the user may expect."""

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """Passes `items` on and shows how far they are; `total` where `items` has no length."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    def step(self, text: str) -> None:
        """Ignored."""

    def detail(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str) -> None:
        """Ignored."""

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """Passes `items` on."""
        return iter(items)
