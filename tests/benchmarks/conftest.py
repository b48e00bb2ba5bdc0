"""The scripts of benchmarks/ and of its papers/ can be imported, as they import one another: by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """Behind everything else, so that no script stands in for a library of its name."""
    folders = [str(BENCHMARKS), str(BENCHMARKS / "papers")]
    sys.path.extend(folders)
    yield
    for folder in folders:
        sys.path.remove(folder)
