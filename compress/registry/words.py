"""Near matches for what was mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question such as "did you mean 'tetris'?"; "" where nothing in `known` is near `word`."""
    # Without dashes, which all flags share and which would make them look alike.
    bare = {name.lower().lstrip("-"): name for name in known}
    near = [bare[match] for match in get_close_matches(word.lower().lstrip("-"), bare, n=3, cutoff=0.6)]
    if not near:
        return ""
    return "did you mean " + " or ".join(repr(name) for name in near) + "?"
