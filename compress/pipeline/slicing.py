"""From a plan to a smaller network: units sliced and verified, or weights masked and dead units removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compress.graph import (
    Coupling,
    ModuleSlice,
    attribute,
    clusters,
    remove_dead,
    slice_graph,
    slice_module,
    slice_verified,
)
from compress.graph.operands import output_dims
from compress.plan import Plan
from compress.progress import Progress
from compress.sparsity import two_of_four


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


def slice_weights(coupling: Coupling, plan: Plan, groups: Collection[str] | None = None) -> Sliced:
    """Zero the masked weights and remove what is dead then, of ``groups`` or of all."""
    found = remove_dead(coupling, plan.masks, groups)
    notes = {name: dict(note) for name, note in plan.notes.items()}
    told = {n: len(units) for n, units in found.removed.items()}
    for what, counts in (("dead", told), ("of them constants", found.carried), ("dead, but held", found.left)):
        for name, count in counts.items():
            notes.setdefault(name, {})[what] = count
    outputs = output_dims(coupling)
    for name, mask in plan.masks.items():
        dim = outputs.get(name, 0)
        if two_of_four(attribute(found.module, name), dim):
            notes.setdefault(name, {})["2:4 pattern"] = "yes"
        elif two_of_four(mask, dim):
            notes.setdefault(name, {})["2:4 pattern"] = "no, as inputs are gone since"
    done = replace(plan, removed=found.removed, notes=notes)
    alive = coupling.alive(found.removed)
    return Sliced(found.module, done, alive, found.verification.error, found.rolled_back)


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
            kept, refused = _representable(coupling, found.removed, module, progress)
            for name, problem in refused.items():
                progress.warn(f"{name} keeps its size: {problem}")
            found = slice_verified(coupling, kept)
            rolled_back |= {**refused, **found.rolled_back}
            in_place = slice_module(module, coupling, found.alive, found.module)
    done = replace(plan, removed=found.removed)
    return Sliced(found.module, done, found.alive, found.verification.error, rolled_back, in_place)


def _representable(
    coupling: Coupling, removed: Mapping[str, Any], module: nn.Module, progress: Progress
) -> tuple[dict[str, Any], dict[str, str]]:
    """What of a plan the module's code can represent, and the groups, balanced ones together, that it refuses.

    Parts are added one by one to those that work together, as two that work alone need not.
    """
    kept: dict[str, Any] = {}
    refused: dict[str, str] = {}
    parts = [{n: removed[n] for n in c.groups if n in removed} for c in clusters(coupling)]
    parts = [p for p in parts if p]
    for part in progress.track(parts, "asking the module", len(parts)):
        alive = coupling.alive(kept | part)
        outcome = slice_module(module, coupling, alive, slice_graph(coupling, alive))
        if outcome.module is None:
            refused |= dict.fromkeys(part, f"the module cannot represent it: {outcome.problem}")
        else:
            kept |= part
    return kept, refused
