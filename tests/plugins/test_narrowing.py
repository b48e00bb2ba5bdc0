"""How many weights annealing leaves in the network of the paper, epoch by epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plugin import Context
from compress_plugins.narrowing import Weights

# ADP, figure 14: 25 epochs, mu 10, 784-1200-1200-10 without its first layer
FIGURE = {
    (0.2, 0): 1_452_000, (0.2, 1): 884_106, (0.2, 2): 665_686, (0.2, 3): 550_051, (0.2, 4): 478_468, (0.2, 5): 429_792,
    (0.2, 12): 294_783, (0.2, 13): 290_400, (0.2, 25): 290_400, (0.4, 1): 1_026_080, (0.6, 1): 1_168_053,
    (0.8, 1): 1_310_026,
}  # fmt: skip


@pytest.fixture(scope="module")
def context() -> Context:
    layers = (nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 10))
    return Context(analyse(trace(nn.Sequential(*layers).eval(), (torch.zeros(2, 784),))), has_budget=False)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_figure_of_the_paper(context: Context, stacked: bool) -> None:
    """Each of the two layers is truncated for itself, which may cost a weight more."""
    for (keep, epoch), count in FIGURE.items():
        left = Weights(context, keep, 10.0, stacked=stacked).left(epoch, 25)
        assert len(left) == (1 if stacked else 2)
        assert sum(left) == count if stacked else count - 1 <= sum(left) <= count, (keep, epoch, left)
