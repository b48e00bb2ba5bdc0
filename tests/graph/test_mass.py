"""Sums of powers by index equal those of the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.graph import mass as module
from compress.graph.blocks import values_at
from compress.graph.mass import mass


def test_by_hand() -> None:
    found = mass(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), 2)
    assert found.along(0).tolist() == [5.0, 9.0]
    assert found.along(1).tolist() == [10.0, 4.0]
    assert mass(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), 1).along(1).tolist() == [4.0, 2.0]
    assert mass(torch.tensor([1.0, -2.0]), 2).along(0).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 4, 3, 2), (6, 2, 3)])
@pytest.mark.parametrize("blocks", [1, 3, 6])
@pytest.mark.parametrize("chunk", [1, 10, 2**17])
def test_equals_the_values(shape: tuple[int, ...], blocks: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = mass(tensor, 1.5, blocks)
    for dim, n in enumerate(shape):
        count = blocks if dim else 1
        values = values_at(tensor, dim, count, np.arange(count * n)).double().abs().pow(1.5)
        assert torch.allclose(found.along(dim, count), values.reshape(count * n, -1).sum(1))
