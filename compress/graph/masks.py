"""Units as masks: what a removal leaves of every parameter, for networks that are pruned while they train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.blocks import clear
from compress.graph.groups import Coupling
from compress.graph.trace import attribute


def unit_masks(coupling: Coupling, removed: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """By parameter, of its shape: True where a value stays when the given units go.

    Everything that a unit holds is masked: what makes it, what normalises it and what reads it. A network masked so
    computes what its slice computes, but for normalisations and means over channels, which still count the zeros.

    Args:
        coupling: The analysed network.
        removed: By group the units that go.
    """
    alive = coupling.alive(removed)
    found: dict[str, Tensor] = {}
    for slot in coupling.flow.slots:
        gone = np.flatnonzero(~alive[slot.labels])
        tensor = attribute(coupling.program.module, slot.tensor)
        if len(gone) and isinstance(tensor, nn.Parameter):
            mask = found.setdefault(slot.tensor, torch.ones(tensor.shape, dtype=torch.bool))
            clear(mask, slot.dim, slot.blocks, gone)
    return found
