"""Translations of the ONNX operators, one file per family; importing them fills the table."""

from compress.checkpoint.onnx.operators import (
    activation,
    convolution,
    elementwise,
    norm,
    pieces,
    pooling,
    products,
    reduction,
    resize,
    shape,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "norm",
    "pieces",
    "pooling",
    "products",
    "reduction",
    "resize",
    "shape",
]
