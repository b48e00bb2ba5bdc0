"""Edges: the single weights of 1x1 convolutions and linear layers, and modules through which a network reads them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Figure, ModelError, Series, insert_module
from compress_plugins.thresholds import alpha_of, signed_all, start_beta

Dims = tuple[int, ...] | None


def edge_weights(context: Context) -> dict[str, Tensor]:
    """Weights of the 1x1 convolutions that may be trained; of linear layers, where there is no such convolution.

    ``--only`` and ``--exclude`` choose by the groups of units that a weight makes or reads. Of tensors that several
    layers share, the first name counts.

    Raises:
        ModelError: There are none.
    """
    chosen = context.layers(every=not (context.only or context.exclude))
    owned = {name: p for name, p in context.module.named_parameters() if p.requires_grad}
    weights = {name: weight for name, weight in chosen.items() if name in owned and bool(weight.any())}
    convolutions = {n: w for n, w in weights.items() if w.dim() > 2 and set(w.shape[2:]) == {1}}
    found = convolutions or {n: w for n, w in weights.items() if w.dim() == 2}
    if not found:
        raise ModelError(
            "no edges: there is no 1x1 convolution and no linear layer whose weights could be trained",
            "--only and --exclude choose among the layers that `compress inspect` lists; "
            "`--mode annealing` masks weights of any layer",
        )
    return found


def group_dims(context: Context, name: str, group: str) -> Dims:
    """The dims along which the weights of one group lie: all of a matrix, or those that one output sums over."""
    if group == "matrix":
        return None
    return tuple(dim for dim in range(context.weight(name).dim()) if dim != context.output_dim(name))


class Thresholds(nn.Module):
    """What makes the edges of one weight of alphas, which have its shape.

    Args:
        alpha: Of the weight.
        dims: Of one group, which has one threshold.
    """

    kept: Tensor

    def __init__(self, alpha: Tensor, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
        shape = [1 if dims is None or dim in dims else size for dim, size in enumerate(alpha.shape)]
        size = alpha.numel() // torch.Size(shape).numel()
        self.beta = nn.Parameter(torch.full(shape, start_beta(size), dtype=alpha.dtype, device=alpha.device))
        # Numbers, as a product with bools takes four times as long
        self.register_buffer("kept", torch.ones_like(alpha, requires_grad=False))


class Thresholded(nn.Module):
    """Reads the alphas of all weights and gives their edges (equation 12).

    Args:
        parts: By weight.
        guard: Whether every group keeps an edge.
        rectify: Whether edges that are zero have a gradient.
    """

    def __init__(self, parts: Iterable[Thresholds], guard: bool, rectify: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.guard, self.rectify = guard, rectify
        self.norms: list[Tensor] = []  # of the edges of the last pass of the training, with its gradient

    @property
    def kept(self) -> list[Tensor]:
        """By weight: 1 where an edge may be, 0 where it is cut."""
        return [part.get_buffer("kept") for part in self.parts]

    def forward(self, *alphas: Tensor) -> tuple[Tensor, ...]:
        parts: list[Any] = list(self.parts)
        betas, dims, kept = [p.beta for p in parts], [p.dims for p in parts], [p.kept for p in parts]
        edges, norm = signed_all(alphas, betas, dims, kept, rectify=self.rectify, guard=self.guard)
        self.norms[:] = [norm] if norm.requires_grad else []
        return tuple(edges)

    def norm(self, *alphas: Tensor) -> Tensor:
        """The l1 norm of the edges of the last pass, once; of another pass where there was none."""
        if not self.norms:
            self(*alphas)
        return self.norms.pop()


class Strongest(nn.Module):
    """Reads all weights and gives what is kept; the gradient reaches every edge as if all were (Wortsman et al.)."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        for i, weight in enumerate(weights):
            self.register_buffer(f"kept_{i}", torch.ones_like(weight, requires_grad=False))

    @property
    def kept(self) -> list[Tensor]:
        """By weight: 1 where an edge is kept, 0 elsewhere."""
        return [mask for mask in self._buffers.values() if mask is not None]

    def forward(self, *weights: Tensor) -> tuple[Tensor, ...]:
        edges: tuple[Tensor, ...] = _Masked.apply(*weights, *self.kept)
        return edges


class _Masked(torch.autograd.Function):
    """Products of tensors with as many masks, whose gradients pass as if there were none."""

    @staticmethod
    def forward(context: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        half = len(tensors) // 2
        return tuple(tensor * mask for tensor, mask in zip(tensors[:half], tensors[half:], strict=True))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *gradients, *[None] * len(gradients)


def starting_alpha(weight: Tensor, dims: Dims) -> Tensor:
    """Alphas that give these weights; a group of zeros gets some, as its edges are masked anyway."""
    where = tuple(range(weight.dim())) if dims is None else dims
    some = weight.abs().sum(where, keepdim=True) > 0
    return alpha_of(torch.where(some, weight, torch.ones_like(weight)), where)


def read_through(network: fx.GraphModule, name: str, made: str, module: nn.Module) -> None:
    """Let everything that reads a parameter or buffer read it through a module, a new attribute of the network.

    Args:
        network: Changed in place.
        name: Of the parameter; other names of the same tensor count, too.
        made: Name of the module.
        module: Takes the tensor and gives a tensor of its shape.
    """
    tensors = dict(network.named_parameters(remove_duplicate=False)) | dict(
        network.named_buffers(remove_duplicate=False)
    )
    tied = {each for each, other in tensors.items() if other is tensors[name]}
    first, *others = [node for node in network.graph.nodes if node.op == "get_attr" and str(node.target) in tied]
    reads = insert_module(network, made, module, first)
    for node in others:
        node.replace_all_uses_with(reads)
    network.recompile()


def read_all_through(network: fx.GraphModule, names: Sequence[str], made: str, module: nn.Module) -> None:
    """As `read_through` for several parameters at once: the module takes all of them and gives as many tensors."""
    if hasattr(network, made):
        raise ValueError(f"the network has something called {made} already")
    network.add_module(made, module)
    tensors = dict(network.named_parameters(remove_duplicate=False))
    graph = network.graph
    readers = [node for node in graph.nodes if node.op == "get_attr" and str(node.target) in tensors]
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        call = graph.call_module(made, tuple(graph.get_attr(name) for name in names))
        items = {id(tensors[n]): graph.call_function(operator.getitem, (call, i)) for i, n in enumerate(names)}
    for node in readers:
        item = items.get(id(tensors[str(node.target)]))
        if item is not None:
            node.replace_all_uses_with(item)
            graph.erase_node(node)
    network.recompile()


def count_others(network: fx.GraphModule, prefixes: Iterable[str]) -> int:
    """Parameters that are not zero, without those that have a name here or belong to a module that has."""
    own = tuple(prefixes)
    others = [
        p for n, p in network.named_parameters() if n not in own and not n.startswith(tuple(f"{o}." for o in own))
    ]
    return count(others)


def by_epoch(name: str, title: str, what: str, counts: Sequence[Sequence[int]]) -> Figure:
    """What is left, by epoch; ``counts`` holds pairs of both."""
    epochs, left = ([float(each[i]) for each in counts] for i in (0, 1))
    return Figure(name, title, "epoch", what, (Series("", epochs, left),))


def count(weights: Iterable[Tensor]) -> int:
    """Edges that are not zero."""
    return sum(int((weight != 0).sum()) for weight in weights)  # on a CPU three times as fast as count_nonzero
