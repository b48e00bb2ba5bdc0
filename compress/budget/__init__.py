"""How small a network is to be, and which of its units go for that."""

from compress.budget.align import Target, multiple, rungs
from compress.budget.allocation import MOST, Allocation, By
from compress.budget.fitting import check, fit, outcome, reach
from compress.budget.kinds import (
    SLACK,
    Budget,
    Kind,
    Outcome,
    Removed,
    Scores,
    Size,
    everything,
    size_of,
)
from compress.budget.layers import fit_layers
from compress.budget.scope import in_scope, matched, prunable
from compress.budget.steps import at_steps

__all__ = [
    "MOST",
    "SLACK",
    "Allocation",
    "Budget",
    "By",
    "Kind",
    "Outcome",
    "Removed",
    "Scores",
    "Size",
    "Target",
    "at_steps",
    "check",
    "everything",
    "fit",
    "fit_layers",
    "in_scope",
    "matched",
    "multiple",
    "outcome",
    "prunable",
    "reach",
    "rungs",
    "size_of",
]
