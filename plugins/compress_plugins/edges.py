"""Edges: the single weights of 1x1 convolutions and linear layers, and modules through which a network reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Figure, ModelError, Series, insert_module
from compress_plugins.narrowing import Ranking
from compress_plugins.thresholds import alpha_of, signed, start_beta

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
    """Reads alpha and gives the edges (equation 12), with one threshold for the matrix or one for each output.

    Args:
        alpha: Of the shape of the weight.
        dims: Of one group.
        rectify: Whether edges that are zero have a gradient.
    """

    kept: Tensor

    def __init__(self, alpha: Tensor, dims: Dims, rectify: bool) -> None:
        super().__init__()
        self.dims, self.rectify = dims, rectify
        self.made: Tensor | None = None  # by the last pass of the training, with its gradient
        where = tuple(range(alpha.dim())) if dims is None else dims
        shape = [1 if dim in where else size for dim, size in enumerate(alpha.shape)]
        size = alpha.numel() // torch.Size(shape).numel()
        self.beta = nn.Parameter(torch.full(shape, start_beta(size), dtype=alpha.dtype, device=alpha.device))
        # Numbers, as a product with bools takes four times as long
        self.register_buffer("kept", torch.ones_like(alpha, requires_grad=False))

    def forward(self, alpha: Tensor) -> Tensor:
        # A matrix keeps an edge; an output may lose all of its own
        where = tuple(range(alpha.dim())) if self.dims is None else self.dims
        edges = signed(alpha, self.beta, where, rectify=self.rectify, guard=self.dims is None)
        kept: Tensor = edges * self.kept
        self.made = kept if kept.requires_grad else None
        return kept

    def taken(self, alpha: Tensor) -> Tensor:
        """The edges of the last pass, once; made anew where there was none."""
        made, self.made = self.made, None
        if made is None:
            made, self.made = self(alpha), None
        return made


class Strongest(nn.Module):
    """Reads a weight and gives what is kept of it; the gradient reaches every edge as if all were (Wortsman et al.)."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, requires_grad=False))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (weight * self.kept - weight).detach()


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


def strongest(
    weights: Mapping[str, Tensor], keep: float, together: bool, rankings: dict[str, Ranking] | None = None
) -> dict[str, Tensor]:
    """True at the largest magnitudes: a share of each weight's, or of all; every weight keeps one.

    Args:
        weights: By name, on any device.
        keep: The share that stays.
        together: Whether the edges of all layers are ranked together.
        rankings: For those who ask again and again, by name of the weight; filled here.
    """
    rankings = {} if rankings is None else rankings

    def most(name: str, size: Tensor) -> Tensor:
        return rankings.setdefault(name, Ranking()).largest(size, max(1, round(keep * len(size))))

    sizes = {name: weight.detach().abs().flatten().float() for name, weight in weights.items()}
    if not together:
        return {name: most(name, size).reshape(weights[name].shape) for name, size in sizes.items()}
    for size in sizes.values():
        size[size.argmax()] = torch.inf
    parts = most("", torch.cat(list(sizes.values()))).split([len(size) for size in sizes.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(sizes, parts, strict=True)}


def held_by_the_rest(
    weights: Mapping[str, Tensor], keep: float, together: bool, rankings: dict[str, Ranking] | None = None
) -> float:
    """The share of all magnitude that the edges hold which a budget would cut now; arguments as of `strongest`."""
    masks = strongest(weights, keep, together, rankings)
    total = sum(float(weight.detach().abs().sum()) for weight in weights.values())
    cut = sum(float((weight.detach().abs() * ~masks[name]).sum()) for name, weight in weights.items())
    return cut / total if total else 0.0


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
    return sum(int(torch.count_nonzero(weight)) for weight in weights)
