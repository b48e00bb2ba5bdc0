"""Makes trained PyTorch models physically smaller, verifies the result and reports it.

>>> import compress
>>> model = compress.load("compressed")     # an nn.Module, from the bundle that `compress prune` wrote
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.checkpoint.write import load_bundle as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

# Imported at first use: torch takes seconds, and `compress --help` comes through this file too.
_LAZY = {"load": ("compress.checkpoint.write", "load_bundle")}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
