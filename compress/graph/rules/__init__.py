"""What every operation does to labels: one file per family of operations."""

from compress.graph.rules import (
    attention,
    contraction,
    creation,
    gathering,
    indexing,
    norm,
    pieces,
    pointwise,
    pooling,
    products,
    reduction,
    shape,
    spectral,
    windows,
)
from compress.graph.rules.registry import REWRITES, RULES, Call, Cut, Kept, UnbalancedError, rewrite, rule

__all__ = [
    "REWRITES",
    "RULES",
    "Call",
    "Cut",
    "Kept",
    "UnbalancedError",
    "attention",
    "contraction",
    "creation",
    "gathering",
    "indexing",
    "norm",
    "pieces",
    "pointwise",
    "pooling",
    "products",
    "reduction",
    "rewrite",
    "rule",
    "shape",
    "spectral",
    "windows",
]
