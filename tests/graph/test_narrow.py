from __future__ import annotations

import pytest
import torch

from compress.graph.narrow import grouped_product


def test_a_grouped_product_written_out() -> None:
    x, weights = torch.arange(8.0).reshape(4, 2), torch.tensor([[[1.0], [0.0]], [[0.0], [2.0]]])
    assert grouped_product(x, weights, torch.tensor([1, 3])).tolist() == [[0.0], [6.0], [10.0], [0.0]]
    with pytest.raises(NotImplementedError, match="other ranks"):
        grouped_product(x, weights[0], torch.tensor([4]))
