"""Dead units: what zeros that are there already have cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.plugin import Context, Plan


@dataclass(frozen=True)
class Dead:
    """Removes exactly what the zeros of a checkpoint have left without effect, and nothing else"""

    granularities: ClassVar[tuple[str, ...]] = ("weight",)

    def plan(self, context: Context) -> Plan:
        """Keeps every weight that is not zero; the core removes units that are dead then."""
        masks = {name: weight != 0 for name, weight in context.layers().items()}
        notes = {n: {"weights": m.numel(), "kept_weights": int(m.sum())} for n, m in masks.items()}
        return Plan(masks=masks, notes=notes)
