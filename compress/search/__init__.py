"""Many candidates of one network, each cut, refitted and judged in seconds: what its families bear, and the smallest.

Nothing here is verified or written: `pipeline.prune` does that with the one that is chosen.
"""

from __future__ import annotations

from compress.search.bench import Bench, Candidate
from compress.search.families import Family, families
from compress.search.objectives import OBJECTIVES, objective
from compress.search.sensitivity import Point, Sensitivity, sensitivities
from compress.search.space import Choice, Space, robustness
from compress.search.study import Goal, Trial, front, open_study, run, smallest, trials_of

__all__ = [
    "OBJECTIVES",
    "Bench",
    "Candidate",
    "Choice",
    "Family",
    "Goal",
    "Point",
    "Sensitivity",
    "Space",
    "Trial",
    "families",
    "front",
    "objective",
    "open_study",
    "robustness",
    "run",
    "sensitivities",
    "smallest",
    "trials_of",
]
