"""From a plan to a smaller network: units sliced and verified, or weights masked and dead units removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compress.graph import Coupling, ModuleSlice, clusters, remove_dead, slice_graph, slice_module, slice_verified
from compress.plan import Plan
from compress.progress import Progress


@dataclass(frozen=True)
class Sliced:
    """A smaller network and how it came about.

    Attributes:
        module: The network.
        plan: What was really removed.
        alive: By label, what stays.
        error: Largest relative difference from the masked original, float64.
        rolled_back: Groups left whole because their slice failed or the module cannot represent it, and why.
        in_place: The same slice on the user's own module; None where that was not tried.
    """

    module: fx.GraphModule
    plan: Plan
    alive: NDArray[np.bool_]
    error: float
    rolled_back: Mapping[str, str] = field(default_factory=dict)
    in_place: ModuleSlice | None = None


def slice_weights(coupling: Coupling, plan: Plan) -> Sliced:
    """Zero the masked weights and remove what is dead then."""
    found = remove_dead(coupling, plan.masks)
    done = Plan(found.removed, plan.masks, plan.notes)
    return Sliced(found.module, done, coupling.alive(found.removed), found.verification.error)


def slice_units(coupling: Coupling, plan: Plan, module: nn.Module, keep_module: bool, progress: Progress) -> Sliced:
    """Remove the units of a plan; under ``keep_module`` only those whose absence the module's code can represent."""
    found = slice_verified(coupling, plan.removed)
    rolled_back: dict[str, str] = dict(found.rolled_back)
    for name, problem in rolled_back.items():
        progress.warn(f"{name} keeps its size: {problem}")
    in_place = None
    if not isinstance(module, fx.GraphModule):
        in_place = slice_module(module, coupling, found.alive, found.module)
        if in_place.module is None and keep_module:
            refused = _refused(coupling, found.removed, module, progress)
            rolled_back |= refused
            kept = {n: u for n, u in found.removed.items() if n not in refused}
            found = slice_verified(coupling, kept)
            in_place = slice_module(module, coupling, found.alive, found.module)
    done = Plan(found.removed, plan.masks, plan.notes)
    return Sliced(found.module, done, found.alive, found.verification.error, rolled_back, in_place)


def _refused(coupling: Coupling, removed: Mapping[str, Any], module: nn.Module, progress: Progress) -> dict[str, str]:
    """Groups, balanced ones together, that the module cannot lose units of."""
    refused: dict[str, str] = {}
    parts = [{n: removed[n] for n in c.groups if n in removed} for c in clusters(coupling)]
    parts = [p for p in parts if p]
    for part in progress.track(parts, "asking the module", len(parts)):
        alive = coupling.alive(part)
        outcome = slice_module(module, coupling, alive, slice_graph(coupling, alive))
        if outcome.module is None:
            refused |= dict.fromkeys(part, f"the module cannot represent it: {outcome.problem}")
    return refused
