from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph import analyse, trace
from compress.pipeline.document import widths


class Net(nn.Module):
    """A convolution, a transposed one, and a matrix that is written (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2)
        self.matrix = nn.Parameter(torch.randn(6, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.up(self.first(x)).mean((2, 3))
        return self.head(torch.relu(pooled @ self.matrix))


def test_widths_are_outputs_whichever_dim_of_the_weight_holds_them() -> None:
    coupling = analyse(trace(Net().eval(), (torch.randn(2, 3, 4, 4),)))
    by_size = {group.size: group.name for group in coupling.groups}
    alive = coupling.alive({by_size[6]: np.array([0, 3]), by_size[8]: np.array([1])})
    found = {each.name: (each.before, each.after, each.frozen) for each in widths(coupling, alive)}
    output = "an output of the network keeps its size"
    assert found == {"first": (4, 4, None), "up": (6, 4, None), "matrix": (8, 7, None), "head": (2, 2, output)}
