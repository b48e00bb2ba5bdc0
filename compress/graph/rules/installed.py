"""Rules that other distributions bring along: modules that they register under an entry-point group."""

from __future__ import annotations

import functools
import importlib.metadata
import sys

GROUP = "compress.rules"
_met: set[tuple[str, str]] = set()


def load_rules() -> list[str]:
    """Import the modules that installed distributions register under ``compress.rules``, each once.

    Returns:
        What is wrong with those that cannot be imported, one text for each, told only once; the others work.
    """
    problems = []
    for entry in _entries(tuple(sys.path)):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        if (origin, entry.value) in _met:
            continue
        _met.add((origin, entry.value))
        try:
            entry.load()
        except Exception as error:  # a foreign module may raise anything while it is imported
            reason = f"{type(error).__name__}: {error}"
            problems.append(f"the rules of {origin} cannot be imported from {entry.value}: {reason}")
    return problems


@functools.lru_cache(maxsize=1)
def _entries(_path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Looking them up reads the metadata of every distribution: done again only where the path has changed."""
    return tuple(importlib.metadata.entry_points(group=GROUP))
