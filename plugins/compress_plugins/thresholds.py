"""Differentiable sparsification: weights of components behind learned thresholds, which gradient descent makes zero.

A group of n components has a parameter alpha for each and one scalar beta for all. Components whose share of the
group's magnitude is below sigmoid(beta) are exactly zero. Beside the parameterisations stand the norms that drive
components to zero, and the proximal steps that reach zeros without a threshold.

Groups lie along the dims that a function is told, all of the tensor by default; beta then broadcasts against what
``sum(dims, keepdim=True)`` leaves.

Source: Lee, Differentiable Sparsification for Deep Neural Networks, 2019 (equations by their numbers there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from compress_plugins.shrinking import Layout, Part, Shrink, sigmoids

Dims = int | Sequence[int] | None

_SHARE = 0.99  # of the largest component, where a threshold would take all of them
_SURE = 0.98  # of a mean component: below `_SHARE` of a largest one, however sums are rounded
_ZERO = 0.5  # where a component starts that is zero: in the middle between zero and its threshold


def start_beta(n: int) -> float:
    """Beta at which the threshold of n components is 1 / (n (n + 1)) of their magnitude: -log(n^2 + n - 1).

    The paper has it without the minus sign, which puts the threshold above all components of any group of two or more.
    """
    return -math.log(n * n + n - 1)


def start_alpha(n: int, target: float = 0.5) -> float:
    """The alpha of all n components at which, with `start_beta`, each weighs ``target``."""
    return target * (n + 1) / n


def alpha_of(values: Tensor, dims: Dims = None) -> Tensor:
    """The alphas at which, with the beta of `start_beta`, `signed` gives these values.

    With s = sigmoid(beta) and the threshold t, alpha_i = a_i + sign(a_i) t, where t = s sum |alpha|. Components that
    are zero get t / 2, inside the dead zone but not at zero, where sign(alpha) would hold them for ever. With m
    components that are not zero and z that are, t = s sum |a| / (1 - s (m + z / 2)).

    Args:
        values: What the components weigh, any shape.
        dims: Where a group's components lie.

    Raises:
        ValueError: All components of a group are zero, and so would be its threshold.
    """
    size = values.abs().sum(_dims(values, dims), keepdim=True)
    if not bool((size > 0).all()):
        raise ValueError("all components of a group are zero")
    alive = values != 0
    share = 1 / (_count(values, dims) * (_count(values, dims) + 1))
    held = torch.where(alive, 1.0, _ZERO).to(values.dtype).sum(_dims(values, dims), keepdim=True)
    limit = share * size / (1 - share * held)
    return torch.where(alive, values + values.sign() * limit, _ZERO * limit)


def threshold(size: Tensor, beta: Tensor, dims: Dims = None, *, guard: bool = True) -> Tensor:
    """What a component's magnitude has to exceed: sigmoid(beta) sum |size|, of the shape that the sum keeps.

    Args:
        size: Magnitudes of the components, any shape, 0 or more.
        beta: One number for each group.
        dims: Where a group's components lie.
        guard: Whether the threshold stays below the largest component, so that no group is zero altogether.
    """
    where, kept = _dims(size, dims), dims is not None
    limit = torch.sigmoid(beta) * size.sum(where, keepdim=kept)
    return torch.minimum(limit, _SHARE * size.amax(where, keepdim=kept)) if guard else limit


def _are_below(alpha: Tensor, beta: Tensor, layout: Layout) -> bool:
    """Whether thresholds are below the guard for sure; to look at numbers costs a GPU more than it saves."""
    if not alpha.is_cpu:
        return False
    for i, (part, share) in enumerate(zip(layout.parts, sigmoids(beta, layout), strict=True)):
        largest = share if isinstance(share, float) else float(share.max())
        if largest * part.size >= _SURE * part.groups:  # a largest component is no smaller than the mean
            size = alpha.split(layout.sizes)[i].abs().view(part.shape)
            limit = share * size.sum(part.dims, keepdim=True)
            if not bool((limit < _SHARE * size.amax(part.dims, keepdim=True)).all()):
                return False
    return True


def rectified(x: Tensor) -> Tensor:
    """relu(x), with the gradient of elu(x): e^x below zero, so that what is zero can come back (section 3.3).

    Without effect where the result is multiplied with what goes through a ReLU next: its gradient at 0 is 0.
    """
    smooth = functional.elu(x)
    return smooth + (functional.relu(x) - smooth).detach()


def signed(alpha: Tensor, beta: Tensor, dims: Dims = None, *, rectify: bool = False, guard: bool = True) -> Tensor:
    """sign(alpha) max(0, |alpha| - sigmoid(beta) sum |alpha|) (equation 12).

    Args:
        alpha: Of the components, any shape.
        beta: One number for each group.
        dims: Where a group's components lie.
        rectify: Take the gradient of `rectified`.
        guard: Keep the largest component of a group where all would be zero.
    """
    part = Part(tuple(alpha.shape), _dims(alpha, dims))
    betas = beta.expand(part.of_groups).reshape(-1)
    return signed_parts(alpha.reshape(-1), betas, Layout((part,)), rectify=rectify, guard=guard)[0][0]


def signed_parts(
    alpha: Tensor,
    beta: Tensor,
    layout: Layout,
    kept: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    rectify: bool = False,
    guard: bool = True,
) -> tuple[list[Tensor], Tensor]:
    """What `signed` gives for several tensors, times ``kept``, and the l1 norm of it all.

    Args:
        alpha: Of all components, those of one tensor behind those of another, (n,).
        beta: Of all groups.
        layout: Which these tensors are.
        kept: 0 or 1 for every component.
        weights: Of every component in the norm, 0 or more; 1 if left out.
        rectify, guard: As there.
    """
    if not guard or _are_below(alpha.detach(), beta.detach(), layout):
        *values, norm = Shrink.apply(layout, rectify, alpha, beta, kept, weights)
        return values, norm
    # The derivative of a largest component, which the guard takes for the threshold's, is left to autograd
    values, betas = [], beta.split(layout.groups)
    masks = [None] * len(betas) if kept is None else kept.split(layout.sizes)
    for part, a, b, mask in zip(layout.parts, alpha.split(layout.sizes), betas, masks, strict=True):
        a = a.view(part.shape)
        size = a.abs()
        above = size - threshold(size, b.view(part.of_groups), part.dims)
        made = a.detach().sign() * (rectified(above) if rectify else functional.relu(above))
        values.append(made if mask is None else made * mask.view(part.shape))
    flat = torch.cat([each.reshape(-1) for each in values])
    return values, l1(flat if weights is None else flat * weights)


def l1(values: Tensor) -> Tensor:
    """Sum |a|: components go one by one."""
    return values.abs().sum()


def lp(values: Tensor, p: float = 0.5, dims: Dims = None, eps: float = 0.0) -> Tensor:
    """(Sum |a|^p)^(1/p), summed over groups, for 0 < p < 1: of components that sum to 1, few (1) rather than all (n).

    The gradient of |a|^p is infinite at 0; components that are zero are left out and get none.

    Args:
        values: Any shape.
        p: Above 0, below 1.
        dims: Where a group's components lie.
        eps: Added to every |a| that is not zero, which bounds its gradient.
    """
    size = values.abs()
    alive = size > 0
    powers = torch.where(alive, torch.where(alive, size + eps, 1.0) ** p, 0.0)
    return (powers.sum(_dims(values, dims)) ** (1 / p)).sum()


def l21(values: Tensor, dims: Dims = None) -> Tensor:
    """Sum over groups of their Euclidean norms: whole groups go. A group that is zero has no gradient."""
    squares = values.square().sum(_dims(values, dims))
    alive = squares > 0
    return torch.where(alive, torch.where(alive, squares, 1.0).sqrt(), 0.0).sum()


def l12(values: Tensor, dims: Dims = None) -> Tensor:
    """Half the sum over groups of their squared l1 norms (exclusive lasso): components of a group compete."""
    return 0.5 * values.abs().sum(_dims(values, dims)).square().sum()


def prox_l1(values: Tensor, step: float) -> Tensor:
    """argmin_w |w - v|^2 / 2 + step sum |w|: what is below ``step`` becomes zero."""
    return functional.softshrink(values, step)


def prox_l21(values: Tensor, step: float, dims: Dims = None) -> Tensor:
    """argmin_w |w - v|^2 / 2 + step sum |w_g|: groups whose norm is below ``step`` become zero."""
    norms = values.square().sum(_dims(values, dims), keepdim=True).sqrt()
    scale = functional.relu(1 - step / torch.where(norms > 0, norms, torch.ones_like(norms)))
    return torch.where(norms > 0, scale, 0.0) * values


def prox_l12(values: Tensor, step: float, dims: Dims = None, variant: Literal["printed", "exact"] = "exact") -> Tensor:
    """argmin_w |w - v|^2 / 2 + step sum |w_g|_1^2 / 2, or what equation 7 has for it.

    The threshold is step |w_g|_1. Equation 7 takes the norm of v for that of the solution w, which is smaller. Exact:
    with the k largest components left, |w_g|_1 is their sum over 1 + step k, and k is the largest for which the k-th
    exceeds the threshold.

    Args:
        values: Any shape.
        step: Learning rate times weight of the norm.
        dims: Where a group's components lie.
        variant: ``exact``, or ``printed`` for equation 7.
    """
    size, where = values.abs(), _dims(values, dims)
    if variant == "printed":
        return values.sign() * functional.relu(size - step * size.sum(where, keepdim=True))
    kept = [d for d in range(values.dim()) if d not in where]
    rows = size.permute(*kept, *where).reshape(*(size.shape[d] for d in kept), -1)
    ordered = rows.sort(-1, descending=True).values
    ranks = torch.arange(1, rows.shape[-1] + 1, device=values.device)
    norms = ordered.cumsum(-1) / (1 + step * ranks)
    # The first component always exceeds its threshold, unless the group is zero
    last = (ordered > step * norms).sum(-1, keepdim=True).clamp(min=1) - 1
    norm = norms.gather(-1, last).reshape([1 if d in where else size.shape[d] for d in range(values.dim())])
    return values.sign() * functional.relu(size - step * norm)


def _dims(tensor: Tensor, dims: Dims) -> tuple[int, ...]:
    """Dims counted from the front; all of them for None."""
    if dims is None:
        return tuple(range(tensor.dim()))
    return tuple(sorted(d % tensor.dim() for d in ([dims] if isinstance(dims, int) else dims)))


def _count(tensor: Tensor, dims: Dims) -> int:
    return math.prod(tensor.shape[d] for d in _dims(tensor, dims))
