"""How much of a network can be pruned, and what holds the rest, told alike by every command."""

from __future__ import annotations

from compress.graph import Coupling
from compress.graph.freedom import freedom
from compress.report import Held, Prunable


def prunable(coupling: Coupling) -> Prunable:
    """The prunable channel indices of all layer weights; the same reason in many modules is one entry."""
    found = freedom(coupling)
    places: dict[tuple[str, str], dict[str, int]] = {}
    for held in found.held:
        places.setdefault((held.reason, held.op), {})[held.where] = held.indices
    merged = [
        Held(reason, op, tuple(where for where in indices if where), sum(indices.values()))
        for (reason, op), indices in places.items()
    ]
    return Prunable(found.prunable, found.total, tuple(sorted(merged, key=lambda held: -held.indices)))
