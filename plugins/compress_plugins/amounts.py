"""How much a training leaves, where a fraction or a budget may say it."""

from __future__ import annotations

from compress.plugin import Context, InputError


def check_fraction(keep: float | None) -> None:
    """Raises ValueError where a fraction is none that leaves something and takes something."""
    if keep is not None and not 0 < keep < 1:
        raise ValueError(f"keep: must be above 0 and below 1, got {keep:g}")


def check_one_size(context: Context, keep: float | None) -> None:
    """Raises InputError where a fraction and a budget are both given."""
    if context.has_budget and keep is not None:
        raise InputError(f"--keep and --{context.budget.kind} both say how much stays", "leave one of them out")
