"""Network slimming: a channel is worth as much as the batch norm behind it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.plugin import Context, Group, ModelError
from compress_plugins.magnitude import Magnitude


@dataclass(frozen=True)
class Slimming:
    """Magnitude of the batch norm's scale of a channel; groups without a batch norm go by magnitude"""

    source: ClassVar[str] = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"

    def score(self, group: Group, context: Context) -> Tensor:
        """|gamma| of the channel, summed over the batch norms of a residual stream.

        Raises:
            ModelError: No group has a batch norm with a scale.
        """
        if self not in context.memo:
            context.memo[self] = _scales(context)
        scales: frozenset[str] = context.memo[self]
        total = torch.zeros(group.size, dtype=torch.float64)
        own = [m for m in group.members if m.tensor in scales]
        if not own:
            context.notes[group.name] = {"ranked": "as by magnitude: no batch norm"}
            return Magnitude().score(group, context)
        for member in own:
            total += member.values(context.weight(member.tensor).double()).reshape(group.size, -1).abs().sum(1)
        return total


def _scales(context: Context) -> frozenset[str]:
    """Names of the scales of all batch norms that any group shortens."""
    found = set()
    for node, call in context.coupling.flow.calls.items():
        if call.op == "aten::batch_norm" and getattr(node.args[1], "op", "") == "get_attr":
            found.add(str(node.args[1].target))  # type: ignore[union-attr]
    scales = frozenset(found & {m.tensor for g in context.groups for m in g.members})
    if not scales:
        raise ModelError(
            "slimming ranks channels by the scales of their batch norms, and no prunable layer is followed by one",
            "choose another method, such as magnitude or dependency",
        )
    return scales
