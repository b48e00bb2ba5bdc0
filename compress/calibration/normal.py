"""Streaming ridge least squares for linear layers and convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

POSITIONS = 128  # output positions (pixels, tokens) drawn from each sample for the normal equations
BLOCK = 256  # columns of a symmetric matrix that are computed at once
_CONSTANT = 1e-12  # of an input's mean square: where it varies by no more, that is the rounding of float32
ROUNDS = 50  # of conjugate gradients, each as much work as a product of inputs x inputs x outputs


@dataclass(frozen=True)
class Layer:
    """What turns the input of a layer into rows of a regression.

    Attributes:
        weight: (O, I / groups, *kernel) or (O, I).
        groups: Groups of a convolution; 1 for linear.
        stride, padding, dilation: By spatial dim; empty for linear.
    """

    weight: Tensor
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def features(self) -> int:
        """Inputs of one output unit."""
        return math.prod(self.weight.shape[1:])

    def rows(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Regression rows of one batch: inputs (groups, N, features) and outputs (groups, N, O / groups), float64.

        A random sample of output positions (tokens, pixels) is taken, the same for all samples of the batch.
        """
        sizes = self._sizes(x, y)
        chosen = _sample(math.prod(sizes), generator)
        return self._inputs(x, sizes, chosen), self._outputs(y, chosen)

    def inputs(self, x: Tensor, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
        """The inputs alone, (groups, N, features).

        Args:
            x: One batch.
            sizes: Spatial sizes of a convolution's output.
            generator: Draws the positions.
        """
        sizes = tuple(sizes) if self.stride else self._sizes(x, x)
        return self._inputs(x, sizes, _sample(math.prod(sizes), generator))

    def _sizes(self, x: Tensor, y: Tensor) -> tuple[int, ...]:
        """Between which positions of the output there is a choice."""
        return tuple(y.shape[2:]) if self.stride else (math.prod(x.shape[1:-1]),)

    def _inputs(self, x: Tensor, sizes: tuple[int, ...], chosen: Tensor) -> Tensor:
        if not self.stride:
            return x.reshape(x.shape[0], -1, x.shape[-1])[:, chosen].reshape(1, -1, x.shape[-1]).double()
        patches = self._patches(x, torch.unravel_index(chosen, sizes))
        n, p = patches.shape[:2]
        return patches.reshape(n * p, self.groups, -1).transpose(0, 1).double()

    def _outputs(self, y: Tensor, chosen: Tensor) -> Tensor:
        if not self.stride:
            return y.reshape(y.shape[0], -1, y.shape[-1])[:, chosen].reshape(1, -1, y.shape[-1]).double()
        rows = y.flatten(2)[:, :, chosen].transpose(1, 2)
        return rows.reshape(-1, self.groups, y.shape[1] // self.groups).transpose(0, 1).double()

    def _patches(self, x: Tensor, positions: tuple[Tensor, ...]) -> Tensor:
        """(N, positions, C, *kernel): the inputs of the given output positions; only these are copied."""
        kernel = self.weight.shape[2:]
        amounts = [a for p in reversed(self.padding) for a in (p, p)]
        x = functional.pad(x, amounts)
        spatial = len(kernel)
        for d in range(spatial):
            reach = self.dilation[d] * (kernel[d] - 1) + 1
            x = x.unfold(2 + d, reach, self.stride[d])[..., :: self.dilation[d]]
        # (N, C, *out, *kernel) -> (N, *out, C, *kernel)
        order = [0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial)]
        index: tuple[Any, ...] = (slice(None), *positions)
        return x.permute(order)[index]


def _sample(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[: min(count, POSITIONS)]


class Moments:
    """Sums of products of regression rows, by group; memory does not grow with the data."""

    def __init__(self, groups: int, features: int, outputs: int) -> None:
        self.count = 0
        self.x = torch.zeros(groups, features, dtype=torch.float64)
        self.y = torch.zeros(groups, outputs, dtype=torch.float64)
        self.xx = torch.zeros(groups, features, features, dtype=torch.float64)
        self.xy = torch.zeros(groups, features, outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows (groups, N, features) and (groups, N, outputs)."""
        self.count += x.shape[1]
        self.x += x.sum(1)
        self.y += y.sum(1)
        add_symmetric(self.xx, x, x)
        self.xy.baddbmm_(x.transpose(1, 2), y)

    def solve(self, prior: Tensor, ridge: float, intercept: bool) -> tuple[Tensor, Tensor]:
        """Weights (groups, features, outputs) nearest to fitting, pulled towards ``prior``, and the intercept.

        Minimises |X W + b - Y|^2 + ridge * mean(diag(X'X)) |W - prior|^2.
        """
        xx, xy = self.centred() if intercept else (self.xx, self.xy)
        scale = xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
        left = xy - xx @ prior
        xx = xx.clone()
        xx.diagonal(dim1=1, dim2=2).add_(ridge * scale[:, None])
        factor, failed = torch.linalg.cholesky_ex(xx)
        if bool(failed.any()):
            # Not positive definite by rounding alone: inputs that depend on each other, and a ridge next to nothing
            change, singular = torch.linalg.solve_ex(xx, left)
            change = torch.where((singular > 0)[:, None, None], 0.0, change)
        else:
            change = torch.cholesky_solve(left, factor)
        weight = prior + change
        return weight, self.shift(weight) if intercept else torch.zeros_like(self.y)

    def solve_within(self, prior: Tensor, ridge: float, intercept: bool) -> tuple[Tensor, Tensor]:
        """As `solve`, with what is zero in ``prior`` left at zero.

        Each output has a system of its own then, of the inputs that it reads. All are approached at once by conjugate
        gradients (Hestenes and Stiefel 1952) from ``prior`` on, scaled by the diagonal; every step lowers the
        objective, so that it may stop after ``ROUNDS``.
        """
        xx, xy = self.centred() if intercept else (self.xx, self.xy)
        diagonal = xx.diagonal(dim1=1, dim2=2)
        pull = ridge * diagonal.mean(1).clamp(min=1e-30)[:, None, None]
        kept, scale = prior != 0, 1 / (diagonal[:, :, None] + pull)
        weight, left = prior.clone(), kept * (xy - xx @ prior)
        step = scale * left
        size = (left * step).sum(1, keepdim=True)
        enough = 1e-12 * size
        for _ in range(ROUNDS):
            if bool((size <= enough).all()):
                break
            change = kept * (xx @ step + pull * step)
            length = size / (step * change).sum(1, keepdim=True).clamp(min=1e-300)
            weight += length * step
            left -= length * change
            before, size = size, (scale * left.square()).sum(1, keepdim=True)
            step = scale * left + size / before.clamp(min=1e-300) * step
        return weight, self.shift(weight) if intercept else torch.zeros_like(self.y)

    def centred(self) -> tuple[Tensor, Tensor]:
        """Products of the rows' deviations from their mean: of inputs with inputs, and with outputs.

        Inputs that were the same in all rows have none; what rounding would leave of them is cleared.
        """
        mean = self.x / max(self.count, 1)
        xx = self.xx - mean[:, :, None] * self.x[:, None, :]
        xy = self.xy - mean[:, :, None] * self.y[:, None, :]
        raw, left = (m.diagonal(dim1=1, dim2=2) for m in (self.xx, xx))
        if bool((constant := left <= _CONSTANT * raw).any()):
            xx.masked_fill_(constant[:, :, None] | constant[:, None, :], 0.0)
            xy.masked_fill_(constant[:, :, None], 0.0)
        return xx, xy

    def shift(self, weight: Tensor) -> Tensor:
        """The intercept with which ``weight`` is right on average: (groups, outputs)."""
        return (self.y - torch.einsum("gf,gfo->go", self.x, weight)) / max(self.count, 1)


def residuals(x: Tensor, y: Tensor, weight: Tensor, intercept: Tensor) -> float:
    """The sum of squares of ``x @ weight + intercept - y``.

    Args:
        x, y: Rows (groups, N, features) and (groups, N, outputs).
        weight: (groups, features, outputs).
        intercept: (groups, outputs).
    """
    return float(torch.baddbmm(intercept[:, None] - y, x, weight).square().sum())


def add_symmetric(total: Tensor, left: Tensor, right: Tensor, factor: float = 1.0) -> None:
    """Add a product that is symmetric to a symmetric matrix, in place; what is below the diagonal is copied.

    Args:
        total: (groups, features, features).
        left, right: (groups, N, features) - factor left' right is added.
    """
    for start in range(0, total.shape[2], BLOCK):
        end = start + BLOCK
        total[:, start:end, start:].baddbmm_(left[:, :, start:end].mT, right[:, :, start:], alpha=factor)
        total[:, end:, start:end] = total[:, start:end, end:].mT


def gram_or_rows(batches: Iterable[Tensor], centred: bool) -> Tensor:
    """The rows of all batches as long as they are fewer than features, otherwise the sums of their products.

    Args:
        batches: At least one; (groups, N, features) each.
        centred: Whether the mean of all rows is subtracted from each.

    Returns:
        (groups, N, features) with N < features, or (groups, features, features).
    """
    held: list[Tensor] = []
    moments: Moments | None = None
    for batch in batches:
        held.append(batch)
        groups, _, features = batch.shape
        if moments is None and sum(rows.shape[1] for rows in held) >= features:
            moments = Moments(groups, features, 0)
        if moments is not None:
            for rows in held:
                moments.add(rows, rows[..., :0])
            held.clear()
    if moments is not None:
        return moments.centred()[0] if centred else moments.xx
    rows = torch.cat(held, 1)
    return rows - rows.mean(1, keepdim=True) if centred else rows


def flat_weight(weight: Tensor, groups: int) -> Tensor:
    """A layer's weight as (groups, features, outputs), float64."""
    return weight.detach().double().reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)


def unflatten(weight: Tensor, like: Any) -> Tensor:
    """The inverse of :func:`flat_weight`."""
    return weight.transpose(1, 2).reshape(like.shape).to(like.dtype)
