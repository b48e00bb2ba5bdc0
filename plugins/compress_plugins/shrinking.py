"""Equation 12 and its gradient, written out for many groups at once: few operations in a step of the training.

Source: Lee, Differentiable Sparsification for Deep Neural Networks, 2019, equation 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Factor = float | Tensor  # a number for one group on a CPU, where it costs nothing to look at
aten = torch.ops.aten


@dataclass(frozen=True)
class Part:
    """One of several tensors that lie behind each other in one vector.

    Attributes:
        shape: Of the tensor.
        dims: Where the components of a group lie in it.
    """

    shape: tuple[int, ...]
    dims: tuple[int, ...]

    @cached_property
    def one(self) -> bool:
        """Whether all is one group, which then stays a vector."""
        return len(self.dims) == len(self.shape)

    @cached_property
    def size(self) -> int:
        """Components."""
        return math.prod(self.shape)

    @cached_property
    def of_groups(self) -> tuple[int, ...]:
        """The shape that a sum over groups keeps."""
        return tuple(1 if dim in self.dims else size for dim, size in enumerate(self.shape))

    @cached_property
    def groups(self) -> int:
        """How many."""
        return math.prod(self.of_groups)


@dataclass(frozen=True)
class Layout:
    """Which tensors a vector holds, one behind the other."""

    parts: tuple[Part, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Components of each."""
        return [part.size for part in self.parts]

    @cached_property
    def groups(self) -> list[int]:
        """Groups of each."""
        return [part.groups for part in self.parts]

    @cached_property
    def plain(self) -> bool:
        """Whether each is one group."""
        return all(part.one for part in self.parts)

    def split(self, vector: Tensor) -> Sequence[Tensor]:
        """Its parts: vectors, or in their shapes where they hold several groups."""
        found = vector.split_with_sizes(self.sizes)  # without what Tensor.split does in Python
        if self.plain:
            return found
        return [each if part.one else each.view(part.shape) for part, each in zip(self.parts, found, strict=True)]


class Shrink(torch.autograd.Function):
    """sign(alpha) max(0, |alpha| - t) times a mask, with t = sigmoid(beta) sum |alpha|, and the l1 norm of all that.

    With r what reaches |alpha| - t, times sign(alpha), and h the sum of r sign(alpha) over the group:
    d alpha = r - sigmoid(beta) h sign(alpha), and d beta = -sigmoid(beta) (1 - sigmoid(beta)) h sum |alpha|.

    Takes the layout, whether gradients are rectified (those of elu where |alpha| is below t), and four vectors: alpha
    of all parts, beta of all groups, the mask (numbers, or None), and how much each component counts in the norm (None:
    all are 1). Gives a tensor for each part, and the norm.
    """

    @staticmethod
    def forward(
        context: Any, layout: Layout, rectify: bool, alpha: Tensor, beta: Tensor, kept: Tensor | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        sign, values = alpha.sign(), torch.empty_like(alpha)
        shares, sizes, limits = sigmoids(beta.detach(), layout), [], []
        alphas, made = layout.split(alpha), layout.split(values)
        for part, share, a, s, v in zip(layout.parts, shares, alphas, layout.split(sign), made, strict=True):
            size = _sums(a, s, part)
            limit = share * size
            if isinstance(limit, float):
                aten.softshrink.out(a, limit, out=v)
            else:
                torch.abs(a, out=v).sub_(limit).relu_().mul_(s)
            sizes.append(size)
            limits.append(limit)
        if kept is not None:
            values.mul_(kept)
        pressed = sign if weights is None else sign * weights
        slope = _slope(alpha, sign, limits, kept, layout) if rectify else None
        context.layout, context.shares, context.sizes = layout, shares, sizes
        context.save_for_backward(values, sign, pressed, slope)
        context.set_materialize_grads(False)
        shaped = (v.view(part.shape) for part, v in zip(layout.parts, made, strict=True))
        return *shaped, torch.dot(values, pressed)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        values, sign, pressed, slope = context.saved_tensors
        layout, last = context.layout, gradients[-1]
        of_norm = None if last is None else _number(last)
        through = torch.empty_like(values)  # one for all that follows, as memory of this size comes at a price
        pieces = layout.split(through)
        at_once = of_norm if slope is None and isinstance(of_norm, float) else None
        for gradient, t, p in zip(gradients, pieces, layout.split(pressed), strict=False):
            gradient = torch.zeros_like(t) if gradient is None else gradient.reshape(t.shape)
            if at_once is None:
                t.copy_(gradient)
            else:
                torch.add(gradient, p, alpha=at_once, out=t)
        if slope is not None:
            through.mul_(slope)
        if of_norm is not None and at_once is None:
            _add(through, aten.hardshrink_backward(pressed, values, 0.0), of_norm)
        if slope is None:  # nothing reaches what is zero
            aten.hardshrink_backward.grad_input(through, values, 0.0, grad_input=through)
        betas: list[Any] = []
        signs = layout.split(sign)
        for part, share, size, t, s in zip(layout.parts, context.shares, context.sizes, pieces, signs, strict=True):
            pull = share * _sums(t, s, part)
            betas.append((share - 1) * pull * size)
            _add(t, s, -pull)
        if all(isinstance(each, float) for each in betas):
            by_beta = values.new_tensor(betas)
        else:
            by_beta = torch.cat([torch.as_tensor(each).reshape(-1).to(values) for each in betas])
        return None, None, through, by_beta, None, None


def sigmoids(beta: Tensor, layout: Layout) -> list[Factor]:
    """Of the betas of every part, broadcast against its tensor."""
    shares = beta.sigmoid()
    if beta.is_cpu and layout.plain:
        return list(shares.tolist())
    split = shares.split(layout.groups)
    return [each.reshape(() if part.one else part.of_groups) for part, each in zip(layout.parts, split, strict=True)]


def _slope(alpha: Tensor, sign: Tensor, limits: Sequence[Factor], kept: Tensor | None, layout: Layout) -> Tensor:
    """The derivative of elu(|alpha| - t); none of an alpha without a sign."""
    slope = alpha * sign
    for limit, each in zip(limits, layout.split(slope), strict=True):
        each.sub_(limit)
    slope.clamp_(max=0).exp_().mul_(sign.square())
    return slope if kept is None else slope.mul_(kept)


def _number(tensor: Tensor) -> Factor:
    return tensor.item() if tensor.is_cpu and tensor.numel() == 1 else tensor


def _sums(one: Tensor, other: Tensor, part: Part) -> Factor:
    """The sums of products over groups, of the shape that a sum keeps."""
    return _number(torch.dot(one, other)) if part.one else (one * other).sum(part.dims, keepdim=True)


def _add(total: Tensor, tensor: Tensor, factor: Factor) -> None:
    """Add a tensor times a factor in place."""
    if isinstance(factor, Tensor):
        total.addcmul_(tensor, factor)
    else:
        total.add_(tensor, alpha=factor)
