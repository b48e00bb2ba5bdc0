"""Random networks from the constructs that people build networks of."""

from __future__ import annotations

from tests.graph.generator import (
    attention,
    channels,
    convolutions,
    merging,
    normalisations,
    places,
    sequences,
    structures,
    weights,
    windows,
)
from tests.graph.generator.draw import CONSTRUCTS
from tests.graph.generator.network import Network, draw_network

__all__ = [
    "CONSTRUCTS",
    "Network",
    "attention",
    "channels",
    "convolutions",
    "draw_network",
    "merging",
    "normalisations",
    "places",
    "sequences",
    "structures",
    "weights",
    "windows",
]
