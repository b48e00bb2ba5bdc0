"""Translations of the ONNX operators, one file per family; importing them fills the table."""

from compress.checkpoint.onnx.operators import (
    activation,
    classical,
    contributed,
    convolution,
    elementwise,
    norm,
    pieces,
    pooling,
    products,
    recurrent,
    reduction,
    resize,
    shape,
)

__all__ = [
    "activation",
    "classical",
    "contributed",
    "convolution",
    "elementwise",
    "norm",
    "pieces",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
