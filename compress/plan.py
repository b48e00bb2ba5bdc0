"""The plan: what each group keeps, and weight masks where a method wants them. Methods make plans, the core slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.figures import Figure, HeatMap
from compress.graph import Coupling

Ints = NDArray[np.int64]
SCHEMA = "compress.plan/1"


@dataclass(frozen=True)
class Plan:
    """What a method decided.

    Attributes:
        removed: For each group that shrinks, the units that go.
        masks: For weight-level methods: by parameter name a boolean tensor, True where the weight stays.
        notes: By layer, what the method has to say about its choice; goes into the report.
        figures: Pictures of its choice; go into the bundle.
        reached: What the budget came to, where the method counts something else than what is removed here.
        counted: What the fraction of a ratio is a fraction of.
    """

    removed: Mapping[str, Ints] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: tuple[Figure | HeatMap, ...] = ()
    reached: float | None = None
    counted: str = "units"

    @property
    def empty(self) -> bool:
        return not any(len(u) for u in self.removed.values()) and all(bool(m.all()) for m in self.masks.values())

    def without(self, groups: set[str]) -> Plan:
        """The same plan with the named groups left whole."""
        return replace(self, removed={n: u for n, u in self.removed.items() if n not in groups})


def plan_json(plan: Plan, coupling: Coupling) -> dict[str, Any]:
    """The plan as it is written to ``plan.json``: every sliced tensor and dim of the original with the kept indices.

    Masks are given as the flat indices of the weights that were set to zero.
    """
    kept = coupling.kept(coupling.alive(plan.removed))
    return {
        "schema": SCHEMA,
        "kept": {t: {str(d): i.tolist() for d, i in sorted(dims.items())} for t, dims in sorted(kept.items())},
        "removed_units": {n: np.asarray(u).tolist() for n, u in sorted(plan.removed.items()) if len(u)},
        "masks": {n: _zeros(m) for n, m in sorted(plan.masks.items())},
    }


def _zeros(mask: Tensor) -> dict[str, Any]:
    return {"shape": list(mask.shape), "zero": (~mask).flatten().nonzero().flatten().tolist()}
