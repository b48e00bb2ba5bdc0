"""Operators of the domain for classical machine learning that surround the networks of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint.onnx.operators.elementwise import tensor
from compress.checkpoint.onnx.registry import Node, Untranslatable, operator

DOMAIN = "ai.onnx.ml"


@operator("Scaler", domain=DOMAIN)
def scaler(node: Node, operands: list[Any]) -> Tensor:
    """(x - offset) * scale, per feature or with one number for all."""
    offset, scale = (tensor(np.array(node.get(name), np.float32)) for name in ("offset", "scale"))
    return (operands[0].to(torch.float32) - offset) * scale


@operator("ArrayFeatureExtractor", domain=DOMAIN)
def columns(node: Node, operands: list[Any]) -> Tensor:
    """Positions along the last dim; of a vector the result is (1, positions)."""
    x, positions = operands
    found = x.index_select(-1, positions.reshape(-1))
    return found if x.dim() > 1 else found.reshape(1, -1)


@operator("ZipMap", domain=DOMAIN)
def zip_map(node: Node, operands: list[Any]) -> Tensor:
    raise Untranslatable(
        "its output is a dictionary by class and no tensor",
        'convert the model with options={"zipmap": False}, which gives the probabilities as a tensor',
    )
