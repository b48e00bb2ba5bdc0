"""Edges: the single weights of 1x1 convolutions and linear layers, and modules through which a network reads them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Figure, ModelError, Series, insert_module
from compress_plugins.shrinking import Layout, Part
from compress_plugins.thresholds import alpha_of, signed_parts, start_beta

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


class Thresholded(nn.Module):
    """Makes the edges of several weights of alphas (equation 12). One vector has all alphas, one all betas.

    Args:
        weights: What the edges are at first.
        dims: For each, those of one group, which has one threshold.
        guard: Whether every group keeps an edge.
        rectify: Whether edges that are zero have a gradient.
    """

    mask: Tensor

    def __init__(self, weights: Sequence[Tensor], dims: Sequence[Dims], guard: bool, rectify: bool) -> None:
        super().__init__()
        self.guard, self.rectify = guard, rectify
        self.layout = Layout(
            tuple(
                Part(tuple(weight.shape), tuple(range(weight.dim())) if where is None else where)
                for weight, where in zip(weights, dims, strict=True)
            )
        )
        self.norms: list[Tensor] = []  # of the edges of the last pass of the training, with its gradient
        alphas = [starting_alpha(weight.detach(), where) for weight, where in zip(weights, dims, strict=True)]
        betas = [alphas[0].new_full((part.groups,), start_beta(part.size // part.groups)) for part in self.layout.parts]
        self.alpha = nn.Parameter(torch.cat([alpha.flatten() for alpha in alphas]))
        self.beta = nn.Parameter(torch.cat(betas))
        # Numbers, as a product with bools takes four times as long
        self.register_buffer("mask", torch.cat([weight.flatten() != 0 for weight in weights]).to(alphas[0]))

    @property
    def kept(self) -> list[Tensor]:
        """By weight: 1 where an edge may be, 0 where it is cut."""
        pieces = self.mask.split(self.layout.sizes)
        return [piece.view(part.shape) for part, piece in zip(self.layout.parts, pieces, strict=True)]

    def forward(self) -> tuple[Tensor, ...]:
        edges, norm = signed_parts(
            self.alpha, self.beta, self.layout, self.mask, rectify=self.rectify, guard=self.guard
        )
        self.norms[:] = [norm] if norm.requires_grad else []
        return tuple(edges)

    def norm(self) -> Tensor:
        """The l1 norm of the edges of the last pass, once; of another pass where there was none."""
        if not self.norms:
            self()
        return self.norms.pop()


class Strongest(nn.Module):
    """Reads weights and gives what is kept; the gradient reaches every edge as if all were (Wortsman et al.)."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        for i, weight in enumerate(weights):
            self.register_buffer(f"kept_{i}", (weight.detach() != 0).to(weight.dtype))

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


def read_all_through(
    network: fx.GraphModule, names: Sequence[str], made: str, module: nn.Module, *, given: bool
) -> None:
    """As `read_through` for several parameters at once: the module gives as many tensors.

    Args:
        network: Changed in place.
        names: Of the parameters; other names of the same tensors count, too.
        made: Name of the module.
        module: What it gives has the shapes of the parameters.
        given: Whether it takes them; otherwise the network has no such parameters any more.
    """
    if hasattr(network, made):
        raise ValueError(f"the network has something called {made} already")
    network.add_module(made, module)
    tensors = dict(network.named_parameters(remove_duplicate=False))
    graph = network.graph
    readers = [node for node in graph.nodes if node.op == "get_attr" and str(node.target) in tensors]
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        call = graph.call_module(made, tuple(graph.get_attr(name) for name in names) if given else ())
        items = {id(tensors[n]): graph.call_function(operator.getitem, (call, i)) for i, n in enumerate(names)}
    for node in readers:
        item = items.get(id(tensors[str(node.target)]))
        if item is not None:
            node.replace_all_uses_with(item)
            graph.erase_node(node)
    for name, tensor in tensors.items():
        if not given and id(tensor) in items:
            owner, _, last = name.rpartition(".")
            delattr(network.get_submodule(owner), last)
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
