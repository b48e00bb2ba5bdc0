"""Many candidates of one network, each cut, refitted and judged in seconds: what its families bear, and the smallest.

Nothing here is verified or written: `pipeline.prune` does that with the one that is chosen.
"""

from __future__ import annotations

from compress.search.bench import Bench, Candidate
from compress.search.families import Family, families
from compress.search.sensitivity import Point, Sensitivity, sensitivities

__all__ = ["Bench", "Candidate", "Family", "Point", "Sensitivity", "families", "sensitivities"]
