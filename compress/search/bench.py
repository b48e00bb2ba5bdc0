"""One candidate: units cut, layers refitted, accuracy judged on samples that neither the scores nor the refit saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.budget import Scores, at_steps
from compress.data import Split
from compress.evaluate import Accuracy, evaluate
from compress.graph import Cluster, Coupling, slice_graph
from compress.recover import compensate


@dataclass(frozen=True)
class Candidate:
    """A smaller network, not verified.

    Attributes:
        module: The network.
        alive: By label, what stays.
        units: How many units went.
    """

    module: fx.GraphModule
    alive: NDArray[np.bool_]
    units: int


@dataclass(frozen=True)
class Bench:
    """What every candidate of one network has in common.

    Attributes:
        coupling: The analysed network.
        clusters: What may shrink.
        judge: Labelled samples that accuracy is measured on.
        refit: Samples that layers are refitted on, (N, ...); None leaves them as they are.
        device: Where accuracy is measured.
        seed: Of the refits.
    """

    coupling: Coupling
    clusters: tuple[Cluster, ...]
    judge: Split
    refit: Tensor | None
    device: torch.device
    seed: int = 0

    def alive(self, scores: Scores, steps: Sequence[int]) -> NDArray[np.bool_]:
        """By label what stays when cluster ``i`` loses ``steps[i]`` of its steps."""
        return self.coupling.alive(at_steps(self.coupling, self.clusters, scores, steps))

    def candidate(self, scores: Scores, steps: Sequence[int]) -> Candidate:
        """The network in which cluster ``i`` has lost ``steps[i]`` of its steps, the lowest scores first.

        Raises:
            UnbalancedError: Blocks of a view would keep different numbers of indices.
        """
        removed = at_steps(self.coupling, self.clusters, scores, steps)
        alive = self.coupling.alive(removed)
        module = slice_graph(self.coupling, alive)
        units = sum(len(gone) for gone in removed.values())
        if self.refit is not None and units:
            module = compensate(
                self.coupling, alive, module, self.refit, seed=self.seed, together=False
            ).module  # fmt: skip
        return Candidate(module, alive, units)

    def accuracy(self, module: nn.Module) -> Accuracy:
        """On the samples of the judge."""
        return evaluate(module, self.judge, device=self.device)
