"""A model to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A model to measure.

    Attributes:
        suite: ``samples``, ``torchvision``, ``timm`` or ``transformers``.
        name: Unique in its suite.
        family: What the model is an example of, as the table says it.
        build: Makes the module with random weights; nothing is downloaded.
        inputs: Positional and keyword arguments of one call.
        detector: The forward makes boxes: the numbers of the input decide what it computes.
        tolerance: Largest relative error that is exact; wider where the model's own code casts to float32.
    """

    suite: str
    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    detector: bool = False
    tolerance: float = 1e-9


def images(size: int, batch: int = 2, channels: int = 3, dims: int = 2) -> Callable[[], Inputs]:
    """A batch of square images as the one positional argument."""
    return lambda: ((torch.randn(batch, channels, *(size,) * dims),), {})


def words(length: int = 7, vocabulary: int = 60, batch: int = 2) -> Tensor:
    """Token numbers; the first few are left to special tokens."""
    return torch.randint(5, vocabulary, (batch, length))


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw the tensors that initialisation makes constant: norms, biases, statistics, layer scales.

    Zero-initialised heads and tiny layer scales would hide mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.squeeze().dim() <= 1:  # layer scales have shape (C, 1, 1)
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.numel() > 1 and float(tensor.std()) == 0:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


def enliven(module: nn.Module, seed: int = 1) -> None:
    """Draw all weights at the scale of what they sum.

    In networks of a few dozen features the usual deviation of 0.02 leaves attention uniform and outputs constant.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.dim() > 1 and tensor.numel() and tensor.is_floating_point():
                scale = (tensor.numel() / tensor.shape[0]) ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
