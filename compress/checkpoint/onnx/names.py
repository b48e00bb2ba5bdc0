"""Names of ONNX initialisers as names of parameters: letters, digits, underscores and dots."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import fx, nn

_TAKEN = frozenset(dir(fx.GraphModule)) | frozenset(vars(nn.Module()))


def valid_names(names: Iterable[str]) -> dict[str, str]:
    """A name for each that a module may hold: "/block/conv1/w:0" becomes "block.conv1.w_0".

    Names stay apart, none is a folder of another, and none is what a module has anyway.
    """
    found: dict[str, str] = {}
    used: set[str] = set()
    folders: set[str] = set()
    for name in sorted(names, key=lambda each: -each.count("/") - each.count(".")):
        parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in re.split(r"[./]", name) if part]
        parts = [f"{part}_" if part in _TAKEN else part for part in parts] or ["unnamed"]
        made = ".".join(parts)
        while made in used or made in folders or any(each in used for each in _folders(made)):
            made += "_"
            if any(each in used for each in _folders(made)):
                made = made.replace(".", "_")
        found[name] = made
        used.add(made)
        folders.update(_folders(made))
    return {name: found[name] for name in names}


def _folders(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
