"""A learned adjacency matrix that becomes sparse while a graph network trains, and how its relations are scored.

After Lee, "Differentiable Sparsification for Deep Neural Networks" (arXiv:1910.03201), section on graph networks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalise = Literal["balanced", "sinkhorn", "none"]
TINY = 1e-8  # p-norms: below 1, the derivative of x^p at 0 is infinite


def balanced(matrix: Tensor, iterations: int, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Scale rows and columns at once, each by the square root of what its sum is off.

    Where the matrix has support it comes to the limit of :func:`sinkhorn`.

    Args:
        matrix: (N, N), not negative. A row or column of zeros stays as it is.
        iterations: How often.
        rows, columns: (N,) the sums that are wanted; 1 each where left out.
    """
    for _ in range(iterations):
        row = _factor(matrix.sum(1), rows).sqrt()
        column = _factor(matrix.sum(0), columns).sqrt()
        matrix = row[:, None] * matrix * column
    return matrix


def sinkhorn(matrix: Tensor, iterations: int, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Scale the rows, then the columns, and again; arguments as for :func:`balanced`."""
    for _ in range(iterations):
        matrix = _factor(matrix.sum(1), rows)[:, None] * matrix
        matrix = matrix * _factor(matrix.sum(0), columns)
    return matrix


def _factor(sums: Tensor, wanted: Tensor | None) -> Tensor:
    """wanted / sums, and 1 where a sum, or what is wanted of it, is zero."""
    wanted = torch.ones_like(sums) if wanted is None else wanted
    some = (sums > 0) & (wanted > 0)
    one = torch.ones_like(sums)
    return torch.where(some, wanted, one) / torch.where(some, sums, one)


def p_norms(matrix: Tensor, dim: int, p: float = 0.5) -> Tensor:
    """(sum a^p)^(1/p) along a dim, (N,), over the elements that are not zero, so that the gradient is always finite.

    Of a row that sums to 1, p = 0.5 gives 1 where one element holds it all, and N where all are equal.
    """
    some = matrix > 0
    powers = (torch.where(some, matrix, torch.ones_like(matrix)) + TINY) ** p
    sums = torch.where(some, powers, torch.zeros_like(powers)).sum(dim)
    alive = sums > 0
    return torch.where(alive, torch.where(alive, sums, torch.ones_like(sums)) ** (1 / p), torch.zeros_like(sums))


def within(adjacency: Tensor, steps: int) -> Tensor:
    """Which nodes reach one another in so many steps along edges, (N, N) bool; each reaches itself in none."""
    edges = (adjacency != 0).float()
    reached = torch.eye(len(edges), dtype=torch.bool, device=edges.device)
    for _ in range(steps):
        reached = reached | (reached.float() @ edges > 0)
    return reached


def relationship_score(matrix: Tensor, adjacency: Tensor, steps: int) -> float:
    """How much of a learned matrix joins nodes that are near in the graph: 0 to 1, 1 where all of it does.

    Half the mean over nodes of what lies within ``steps`` edges, in rows that are scaled to sum 1 and in such columns.
    A row or column of zeros counts as 0.

    Args:
        matrix: (N, N), not negative.
        adjacency: (N, N) of the graph; what is not zero is an edge.
        steps: Distance up to which nodes are near; 1 is a neighbour, and a node is near itself.
    """
    matrix = matrix.detach().double()
    near = within(adjacency, steps)
    rows = _factor(matrix.sum(1), None)[:, None] * matrix
    columns = matrix * _factor(matrix.sum(0), None)
    return float(((rows + columns) * near).sum()) / (2 * len(matrix))


class LearnedAdjacency(nn.Module):
    """Mixes the nodes of a graph by a matrix that is learned with the network: ``(..., N, F) -> (..., N, F)``.

    With g_ij = exp(alpha_ij), element ij is the positive part of g_ij - s(b_i) |g_i,:| - s(c_j) |g_:,j|, with sums of
    rows and columns and the logistic function s, and then rows and columns are scaled to their sums. Elements become
    exactly zero, and the thresholds of rows (b) and columns (c) are learned. One module may serve several layers.

    Args:
        start: (N, N), not negative: the matrix to start from, exactly where ``rows`` and ``columns`` are its sums or
            nothing is normalised. What is zero in it is below the threshold. A number N starts with all elements
            nearly equal.
        normalise: How sums are reached: ``balanced`` and ``sinkhorn`` of :func:`balanced` and :func:`sinkhorn`.
        rows, columns: (N,) sums of rows and columns; 1 each where left out.
        iterations: Of the scaling, in training.
        export_iterations: In evaluation, and of :meth:`fixed`.
        generator: For the noise of a start from a number.

    Raises:
        ValueError: The matrix is not square, or has an element that is negative or not finite, or nothing in it.
    """

    rows: Tensor | None
    columns: Tensor | None

    def __init__(
        self,
        start: Tensor | int,
        normalise: Normalise = "balanced",
        rows: Tensor | None = None,
        columns: Tensor | None = None,
        iterations: int = 10,
        export_iterations: int = 50,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.normalise, self.iterations, self.export_iterations = normalise, iterations, export_iterations
        given = _even(start, generator) if isinstance(start, int) else _checked(start)
        size = len(given)
        step = given.sum() / size**3  # the mean element over N, for rows and for columns
        grown = torch.where(given > 0, given + 2 * step, step)
        self.alpha = nn.Parameter(grown.log().to(given))
        self.row_threshold = nn.Parameter(torch.logit(step / grown.sum(1)).to(given))
        self.column_threshold = nn.Parameter(torch.logit(step / grown.sum(0)).to(given))
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def matrix(self) -> Tensor:
        """The adjacency matrix as it is now, (N, N)."""
        grown = self.alpha.exp()
        row = torch.sigmoid(self.row_threshold) * grown.sum(1)
        column = torch.sigmoid(self.column_threshold) * grown.sum(0)
        found = torch.relu(grown - row[:, None] - column)
        if self.normalise == "none":
            return found
        scale = balanced if self.normalise == "balanced" else sinkhorn
        return scale(found, self.iterations if self.training else self.export_iterations, self.rows, self.columns)

    def penalty(self, p: float = 0.5, matrix: Tensor | None = None) -> Tensor:
        """Half the sum of the p-norms of all rows and columns, a scalar; to be added to the loss with a factor.

        Args:
            p: Of the norm; above 0 and below 1.
            matrix: What :meth:`matrix` gave in this step, where it is at hand, so that it is computed once.
        """
        matrix = self.matrix() if matrix is None else matrix
        return (p_norms(matrix, 1, p).sum() + p_norms(matrix, 0, p).sum()) / 2

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix() @ x

    @torch.no_grad()
    def fixed(self) -> FixedAdjacency:
        """The same with its matrix as a constant, for evaluation and export."""
        training = self.training
        try:
            return FixedAdjacency(self.eval().matrix().clone())
        finally:
            self.train(training)

    def extra_repr(self) -> str:
        return f"nodes={len(self.alpha)}, normalise={self.normalise}"


class FixedAdjacency(nn.Module):
    """Mixes the nodes of a graph by a constant matrix: ``(..., N, F) -> (..., N, F)``.

    Args:
        matrix: (N, N).
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x

    def extra_repr(self) -> str:
        return f"nodes={len(self.matrix)}, edges={int(torch.count_nonzero(self.matrix))}"


def _checked(start: Tensor) -> Tensor:
    start = start.detach()
    if start.dim() != 2 or start.shape[0] != start.shape[1]:
        raise ValueError(f"an adjacency matrix is square, not of shape {tuple(start.shape)}")
    if not bool(torch.isfinite(start).all()) or bool((start < 0).any()):
        raise ValueError("an adjacency matrix has no negative elements, and only finite ones")
    if not bool((start > 0).any()):
        raise ValueError("an adjacency matrix of zeros has nothing to start from")
    return start


def _even(size: int, generator: torch.Generator | None) -> Tensor:
    """Rows and columns that nearly sum to 1, with a hundredth of noise."""
    return torch.exp(0.01 * torch.randn(size, size, generator=generator)) / size
