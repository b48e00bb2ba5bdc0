"""A module is left as it was found, whatever its forward keeps for the next time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put back attributes of all submodules, and the content of lists and dicts among them, on leaving.

    Caches that a forward fills while it is recorded would hold tensors without numbers.
    """
    saved = [(child, {k: (v, _content(v)) for k, v in vars(child).items()}) for child in module.modules()]
    try:
        yield
    finally:
        for child, attributes in saved:
            state = vars(child)
            for name in [k for k in state if k not in attributes]:
                del state[name]
            for name, (value, content) in attributes.items():
                state[name] = value
                _refill(value, content)


def _content(value: Any) -> Any:
    return value.copy() if type(value) in (dict, list, set) else None


def _refill(value: Any, content: Any) -> None:
    if content is None or value == content if type(value) is set else content is None:
        return
    if isinstance(value, dict):
        if len(value) != len(content) or any(value.get(k, value) is not v for k, v in content.items()):
            value.clear()
            value.update(content)
    elif isinstance(value, list):
        if len(value) != len(content) or any(a is not b for a, b in zip(value, content, strict=True)):
            value[:] = content
    else:
        value.clear()
        value.update(content)
