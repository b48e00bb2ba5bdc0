"""Units by the steps that their clusters take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.budget.align import Ints
from compress.budget.kinds import Removed, Scores
from compress.graph import Cluster, Coupling, empty_pieces, lowest


def at_steps(
    coupling: Coupling,
    found: Sequence[Cluster],
    scores: Scores,
    steps: Sequence[int],
    allowed: Sequence[Ints] | None = None,
) -> Removed:
    """Units that go when cluster ``i`` loses ``steps[i]`` of its steps; no piece of a split is left empty.

    A cluster that would empty one goes back to the last of its ``allowed`` steps that does not.
    """
    steps = list(steps)
    while True:
        removed: Removed = {}
        for cluster, step in zip(found, steps, strict=True):
            removed.update(lowest(cluster, scores, step))
        bad = empty_pieces(coupling, coupling.alive(removed))
        held = [i for i, c in enumerate(found) if steps[i] and bad & set(c.groups)]
        if not held:
            return removed
        for i in held:
            below = np.arange(steps[i]) if allowed is None else allowed[i][allowed[i] < steps[i]]
            steps[i] = int(below[-1])
