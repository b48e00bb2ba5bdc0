"""What all pages on papers have in common: cells of tables, bounds that a reproduction should reach, and writing it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch

from compress.figures import Figure
from compress.report.plots import svg


def cell(values: Iterable[float], digits: int = 4) -> str:
    """Mean and, of more than one, the standard deviation."""
    found = list(values)
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{mean(found):.{digits}f}{spread}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table whose first column is text."""
    yield f"| {' | '.join(head)} |"
    yield f"|:---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


@dataclass(frozen=True)
class Bound:
    """A result that a reproduction should reach.

    Attributes:
        claim: In words, with the numbers.
        found: What the run has.
        holds: Whether that is so.
    """

    claim: str
    found: str
    holds: bool


def within(claim: str, values: Sequence[float], low: float, high: float = 1.0) -> Bound:
    """Whether all values lie between two."""
    found = f"{min(values):.4f} to {max(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"
    return Bound(claim, found, low <= min(values) and max(values) <= high)


def bounds(found: Iterable[Bound]) -> Iterator[str]:
    """The section that says which of them hold."""
    yield "## Is it reproduced?\n"
    rows = ((each.claim, each.found, "yes" if each.holds else "no") for each in found)
    yield from table(("bound", "found", "holds"), rows)


def write(results: Path, name: str, lines: Iterable[str], figures: Iterable[Figure]) -> None:
    """Write the page and its figures, and print the page."""
    results.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        (results / f"{figure.name}.svg").write_text(svg(figure), "utf-8")
    page = "\n".join(lines) + "\n"
    (results / f"{name}.md").write_text(page, "utf-8")
    print(page)


def start(given: argparse.Namespace) -> None:
    """Before a run."""
    torch.set_num_threads(given.threads)
