"""Translations of the ONNX operators, one file per family; importing them fills the table."""

from compress.checkpoint.onnx.operators import (
    activation,
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
