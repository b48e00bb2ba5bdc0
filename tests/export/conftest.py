from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Fixed(nn.Module):
    """Built for a batch of two."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(2, 4) * 2


class Pair(nn.Module):
    """Two inputs, one of them indices, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        y = self.layer(x + self.embed(index).mean(1))
        return {"classes": y, "rows": y.reshape(x.shape[0] * 3, 1)}


class Unknown(nn.Module):
    """Holds an operator that ONNX lacks."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fixed() -> nn.Module:
    return Fixed()


@pytest.fixture
def pair() -> nn.Module:
    return Pair()


@pytest.fixture
def unknown() -> nn.Module:
    return Unknown()
