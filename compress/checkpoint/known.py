"""Which torchvision models have the names of a state dict, by a table made beforehand instead of by building them all.

``torchvision_names.json`` holds for every builder, and for the options that change names, a hash of the names of its
weights; ``python benchmarks/torchvision_index.py`` writes it anew. Nothing is loaded from it but names of builders,
and whatever it finds is built and compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("torchvision_names.json")
_OPTIONAL = "num_batches_tracked"  # old files lack these counters


@dataclass(frozen=True)
class Known:
    """A builder with options: how many names its weights have, and their hash."""

    name: str
    args: dict[str, Any]
    count: int
    hash: str


def hash_of(names: Iterable[str]) -> tuple[int, str]:
    """How many names there are, and their hash, whatever their order; batch-norm counters do not count."""
    kept = sorted(name for name in names if not name.endswith(_OPTIONAL))
    return len(kept), hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]


@cache
def table() -> tuple[Known, ...]:
    """Everything in the file."""
    rows = json.loads(FILE.read_text("utf-8"))["models"]
    return tuple(Known(name, args, count, digest) for name, args, count, digest in rows)


def matching(names: Iterable[str]) -> list[Known]:
    """Those whose weights have exactly these names."""
    count, digest = hash_of(names)
    return [each for each in table() if (each.count, each.hash) == (count, digest)]
