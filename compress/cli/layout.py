"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns of even width, those in `right` aligned to the right. Text is never cut."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Labels and what belongs to them, one per line; rows without content are left out."""
    told = [(label, text) for label, text in rows if text]
    width = max((len(label) for label, _ in told), default=0)
    return "\n".join(f"{label.ljust(width)}  {text}" for label, text in told)


def percent(fraction: float) -> str:
    """0.9731 is "97.31 %"."""
    return f"{100 * fraction:.2f} %"
