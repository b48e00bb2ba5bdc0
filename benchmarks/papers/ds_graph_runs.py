"""One run of the graph study of DS: eight past values of every node to the next, through a matrix that is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from compress.nn import LearnedAdjacency, relationship_score
from compress.nn.adjacency import balanced

PAST = 8  # values of a node that the network reads, as in the paper
LEAST = 1.0  # values below count as missing: speeds are 0 there, and a percentage of next to nothing is no measure
LOWEST = 5  # validation errors whose median the paper reports


@dataclass(frozen=True)
class Series:
    """What is measured at the nodes of a graph.

    Attributes:
        values: (steps, nodes); 0 is a value that is missing, as is usual with speeds.
        edges: (nodes, nodes) bool, symmetric, without the diagonal.
    """

    values: Tensor
    edges: Tensor

    @property
    def neighbours(self) -> Tensor:
        """(nodes, nodes) bool: nodes that are joined, and each with itself."""
        return self.edges | torch.eye(len(self.edges), dtype=torch.bool)


@dataclass(frozen=True)
class Case:
    """One row of the table: how the nodes are mixed.

    Attributes:
        kind: "fixed" (1 / number of neighbours), "neighbours" and "all" (exp(alpha), scaled), or "sparse".
        lam: Of the p-norms, per node; "sparse" alone.
    """

    kind: str
    lam: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """How long and how wide."""

    epochs: int
    batch: int
    hidden: int
    rate: float


@dataclass(frozen=True)
class Outcome:
    """What a run came to; errors are mean absolute percentage errors.

    Attributes:
        paper: The median of the five lowest validation errors of an epoch.
        test: Test error after the last epoch.
        nonzero: Elements of the matrix after the last epoch that are not zero.
        scores: Relationship score after the last epoch at distance 1 and 2.
        by_epoch: Elements that are not zero.
    """

    paper: float
    test: float
    nonzero: int
    scores: tuple[float, float]
    by_epoch: tuple[int, ...]


def diffusion(nodes: int, steps: int, seed: int = 0) -> Series:
    """Heat on a random geometric graph: in a step, each node goes halfway to the mean of its neighbours and itself.

    The value at step t is 50 + 10 x_t, with x_{t+1} = 0.98 (x_t + P x_t) / 2 + 0.5 noise; P has 1 / n_i for the n_i
    neighbours of a node.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(nodes, 2, generator=generator)
    apart = torch.cdist(places, places)
    nearest = apart.argsort(1)[:, 1:3]  # so that no node is alone
    edges = apart < (1.5 / nodes) ** 0.5
    edges[torch.arange(nodes)[:, None], nearest] = True
    edges = (edges | edges.T) & ~torch.eye(nodes, dtype=torch.bool)
    series = Series(torch.zeros(0, nodes), edges)
    half = (torch.eye(nodes) + fixed_mean(series.neighbours)) / 2
    x, found = torch.randn(nodes, generator=generator), []
    for step in range(steps + 50):  # the first fifty forget where it began
        x = 0.98 * half @ x + 0.5 * torch.randn(nodes, generator=generator)
        if step >= 50:
            found.append(50 + 10 * x)
    return Series(torch.stack(found), edges)


def roads(file: Path) -> Series:
    """``speed`` (steps, roads) and ``adjacency`` (roads, roads) of an archive."""
    with np.load(file) as archive:
        edges = torch.as_tensor(archive["adjacency"] != 0)
        values = torch.as_tensor(archive["speed"], dtype=torch.float32)
    return Series(values, (edges | edges.T) & ~torch.eye(len(edges), dtype=torch.bool))


def fixed_mean(neighbours: Tensor) -> Tensor:
    """1 / n_i for the n_i neighbours of node i."""
    return neighbours.float() / neighbours.sum(1, keepdim=True)


class Scaled(nn.Module):
    """exp(alpha) where there may be a relation, with rows and columns that sum to 1."""

    def __init__(self, allowed: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.allowed = allowed.float()
        self.alpha = nn.Parameter(0.01 * torch.randn(allowed.shape, generator=generator))

    def matrix(self) -> Tensor:
        return balanced(self.alpha.exp() * self.allowed, 10 if self.training else 50)


class Fixed(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.given = matrix

    def matrix(self) -> Tensor:
        return self.given


def mixing(case: Case, series: Series, generator: torch.Generator) -> nn.Module:
    """The matrix of a row of the table."""
    if case.kind == "fixed":
        return Fixed(fixed_mean(series.neighbours))
    if case.kind == "sparse":
        return LearnedAdjacency(len(series.edges), generator=generator)
    allowed = series.neighbours if case.kind == "neighbours" else torch.ones_like(series.edges)
    return Scaled(allowed, generator)


class Network(nn.Module):
    """relu(A H W + b) and two more layers for each node alone: (batch, nodes, past) to (batch, nodes).

    With two layers of one matrix A, pairs of nodes that read each other would do as well, as A A brings back their own.
    """

    def __init__(self, mix: nn.Module, hidden: int) -> None:
        super().__init__()
        self.mix = mix
        self.first, self.second, self.last = nn.Linear(PAST, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)

    def forward(self, x: Tensor, matrix: Tensor | None = None) -> Tensor:
        matrix = _matrix(self.mix) if matrix is None else matrix
        x = torch.relu(self.first(matrix @ x))  # A H before W: fewer products, the same result
        x = torch.relu(self.second(x))
        out: Tensor = self.last(x)[..., 0]
        return out


@dataclass(frozen=True)
class Windows:
    """Inputs (samples, nodes, past) and targets (samples, nodes), in order of time and standardised."""

    inputs: Tensor
    targets: Tensor
    centre: float
    scale: float

    def error(self, model: Network) -> float:
        """Mean absolute percentage error over all targets that are not missing."""
        with torch.no_grad():
            matrix = _matrix(model.mix)
            found = torch.cat([model(part, matrix) for part in self.inputs.split(256)]) * self.scale + self.centre
        wanted = self.targets * self.scale + self.centre
        known = wanted > LEAST
        return 100 * float(((found - wanted).abs() / wanted)[known].mean())


def divided(series: Series) -> tuple[Windows, Windows, Windows]:
    """The first 70 % of the time to train on, the next 10 % to validate, the last 20 % to test."""
    values = series.values
    windows = values.unfold(0, PAST + 1, 1)  # (samples, nodes, past + 1)
    first, second = int(0.7 * len(windows)), int(0.8 * len(windows))
    known = values[: first + PAST]
    known = known[known > 0]
    centre, scale = float(known.mean()), float(known.std())
    standard = (windows - centre) / scale
    parts = (standard[:first], standard[first:second], standard[second:])
    train, validation, test = (Windows(p[..., :PAST].contiguous(), p[..., PAST], centre, scale) for p in parts)
    return train, validation, test


def run(case: Case, series: Series, sizes: Sizes, seed: int) -> Outcome:
    """Adam on the squared error of targets that are not missing; the learning rate falls to zero on a cosine."""
    torch.manual_seed(seed)
    train, validation, test = divided(series)
    mix = mixing(case, series, torch.Generator().manual_seed(seed))
    model = Network(mix, sizes.hidden)
    optimizer = torch.optim.Adam(model.parameters(), sizes.rate)
    total = sizes.epochs * -(-len(train.inputs) // sizes.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    errors, left = [], []
    for _ in range(sizes.epochs):
        model.train()
        for inputs, targets in _batches(train, sizes.batch):
            known = targets * train.scale + train.centre > LEAST
            matrix = mix.matrix()  # type: ignore[operator]
            loss = (model(inputs, matrix) - targets)[known].square().mean()
            if isinstance(mix, LearnedAdjacency):
                loss = loss + case.lam / len(series.edges) * mix.penalty(matrix=matrix)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        errors.append(validation.error(model))
        left.append(int(torch.count_nonzero(_matrix(mix))))
    lowest = median(sorted(errors)[:LOWEST])
    scores = tuple(relationship_score(_matrix(mix), series.edges, steps) for steps in (1, 2))
    return Outcome(lowest, test.error(model), left[-1], (scores[0], scores[1]), tuple(left))


def _matrix(mix: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = mix.matrix()  # type: ignore[operator]
    return found


def _batches(windows: Windows, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.randperm(len(windows.inputs)).split(size):
        yield windows.inputs[rows], windows.targets[rows]
