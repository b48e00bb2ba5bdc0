"""Equation 12 and its gradient, written out for several tensors at once: few operations in a step of the training.

Source: Lee, Differentiable Sparsification for Deep Neural Networks, 2019, equation 12.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Dims = tuple[int, ...]
Factor = float | Tensor  # a number for one group on a CPU, where it costs nothing to look at
aten = torch.ops.aten


class Shrink(torch.autograd.Function):
    """sign(alpha) max(0, |alpha| - t) times a mask, with t = sigmoid(beta) sum |alpha|, and the l1 norm of all that.

    With r what reaches |alpha| - t, times sign(alpha), and h the sum of r sign(alpha) over the group:
    d alpha = r - sigmoid(beta) h sign(alpha), and d beta = -sigmoid(beta) (1 - sigmoid(beta)) h sum |alpha|.

    Takes for each tensor the dims along which the components of a group lie, whether gradients are rectified (those of
    elu where |alpha| is below t), and all alphas, all betas and all masks (numbers, or None). Gives all results and the
    norm.
    """

    @staticmethod
    def forward(context: Any, dims: tuple[Dims, ...], rectify: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        n = len(dims)
        norm: Factor = 0.0
        made, saved, context.passes = [], [], []
        for where, alpha, beta, kept in zip(dims, tensors[:n], tensors[n : 2 * n], tensors[2 * n :], strict=True):
            assert alpha is not None and beta is not None
            shape = alpha.shape
            if len(where) == len(shape):  # one group, which goes through all that follows as a vector
                alpha, kept = alpha.reshape(-1), None if kept is None else kept.reshape(-1)
            share, sign = sigmoid(beta), alpha.sign()
            size = _sums(alpha, sign, where)
            values, slope = _shrunk(alpha, sign, share * size, kept, rectify)
            norm = norm + _number(torch.dot(values.reshape(-1), sign.reshape(-1)))
            made.append(values.view(shape))
            saved += [values, sign, slope]
            context.passes.append((where, share, size, shape, beta.shape))
        context.save_for_backward(*saved)
        context.set_materialize_grads(False)
        return *made, norm if isinstance(norm, Tensor) else made[0].new_full((), norm)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, last = context.saved_tensors, gradients[-1]
        of_norm = None if last is None else _number(last)
        alphas, betas = [], []
        for i, (where, share, size, shape, of_beta) in enumerate(context.passes):
            values, sign, slope = saved[3 * i : 3 * i + 3]
            gradient = gradients[i]
            gradient = torch.zeros_like(values) if gradient is None else gradient.reshape(values.shape)
            through = _through(gradient, of_norm, values, sign, slope)
            pull = share * _sums(through, sign, where)
            by_beta = (share - 1) * pull * size
            alphas.append(_plus(through, sign, -pull, through).view(shape))
            one = isinstance(by_beta, float)
            betas.append(values.new_full(of_beta, by_beta) if one else by_beta.sum_to_size(of_beta))
        return None, None, *alphas, *betas, *[None] * len(alphas)


def _shrunk(
    alpha: Tensor, sign: Tensor, limit: Factor, kept: Tensor | None, rectify: bool
) -> tuple[Tensor, Tensor | None]:
    """The values, and, where gradients are rectified, what part of them reaches |alpha| - t."""
    one = isinstance(limit, float)
    values = aten.softshrink(alpha, limit) if one else alpha.abs().sub_(limit).relu_().mul_(sign)
    slope = (alpha * sign).sub_(limit).clamp_(max=0).exp_().mul_(sign.square()) if rectify else None
    if kept is not None:
        values.mul_(kept)
        slope = None if slope is None else slope.mul_(kept)
    return values, slope


def _through(gradient: Tensor, of_norm: Factor | None, values: Tensor, sign: Tensor, slope: Tensor | None) -> Tensor:
    """What reaches |alpha| - t, times sign(alpha), of the gradients of the values and of their norm."""
    through = torch.empty_like(values)  # one for all that follows, as memory of this size comes at a price
    if slope is not None:
        torch.mul(gradient, slope, out=through)
        return through if of_norm is None else _plus(through, values.sign(), of_norm, through)
    total = gradient if of_norm is None else _plus(gradient, sign, of_norm, through)
    return aten.hardshrink_backward.grad_input(total, values, 0.0, grad_input=through)  # nothing where values are zero


def sigmoid(beta: Tensor) -> Factor:
    """Of the beta of each group."""
    number = _number(beta.detach())
    return number.sigmoid() if isinstance(number, Tensor) else 1 / (1 + math.exp(-number))


def _number(tensor: Tensor) -> Factor:
    return tensor.item() if tensor.is_cpu and tensor.numel() == 1 else tensor


def _sums(one: Tensor, other: Tensor, dims: Dims) -> Factor:
    """The sums of products over groups: of the shape that a sum keeps, or a number of vectors."""
    return _number(torch.dot(one, other)) if one.dim() == 1 else (one * other).sum(dims, keepdim=True)


def _plus(tensor: Tensor, other: Tensor, factor: Factor, out: Tensor) -> Tensor:
    """A tensor plus another times a factor, written to ``out``."""
    if isinstance(factor, Tensor):
        return torch.addcmul(tensor, other, factor, out=out)
    return torch.add(tensor, other, alpha=factor, out=out)
