"""The information transfer rate: how far gates are open, from source to layer and over the whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, pstdev
from typing import Literal

from torch import Tensor

Formula = Literal["pairs", "layers"]
Stop = Literal["fall", "std", "never"]
Blocks = Mapping[tuple[str, str], float]


def block_rates(
    gates: Mapping[str, Tensor], sources: Mapping[str, Sequence[tuple[str, int]]]
) -> dict[tuple[str, str], float]:
    """By source and layer the mean of the gates between them (DSC, eq. 9).

    Args:
        gates: By layer sigma(C), (inputs,).
        sources: By layer its sources and how many inputs come from each, in their order.
    """
    found = {}
    for layer, opened in gates.items():
        parts = opened.detach().split([size for _, size in sources[layer]])
        for (source, _), part in zip(sources[layer], parts, strict=True):
            found[source, layer] = float(part.mean())
    return found


def network_rate(gates: Mapping[str, Tensor], blocks: Blocks, formula: Formula) -> float:
    """The rate of the network.

    Args:
        gates: By layer sigma(C), (inputs,).
        blocks: The rates between sources and layers.
        formula: ``pairs`` is the mean over all pairs of source and layer (eq. 10: n (n + 1) / 2 of n layers in one
            stack), ``layers`` the mean over layers of the mean of all their gates, as the authors' plots have it.
    """
    if formula == "pairs":
        return mean(blocks.values())
    return mean(float(opened.detach().mean()) for opened in gates.values())


def settled(rates: Sequence[float], stop: Stop, window: int, threshold: float) -> bool:
    """Whether gates have learned what they will learn.

    Args:
        rates: Of the network, by epoch, from 0.
        stop: ``fall``: the rate fell by less than ``threshold`` over the last ``window`` epochs; ``std``: its standard
            deviation over them is below it.
        window: Epochs.
        threshold: Of the rate, which lies between 0 and 1.
    """
    if stop == "never" or len(rates) <= window:
        return False
    last = rates[-1 - window :]
    return (last[0] - last[-1] if stop == "fall" else pstdev(last)) < threshold
