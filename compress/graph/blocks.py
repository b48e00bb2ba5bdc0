"""Dims that count their indices anew in every block of rows, such as the input dim of a grouped convolution.

The weight of a convolution with g groups is (O, I / g, *kernel). Index j of dim 1 is another input channel in each of
the g blocks of O / g rows, so each block may lose other indices; all lose the same number. Such a dim has ``blocks``
times as many indices as its size says: index ``block * size + j``. The same holds for weights (heads, in, out) of
batched products, where each head may lose other inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.calls import bind, op_name
from compress.graph.trace import attribute

Ints = NDArray[np.int64]

_PRODUCTS = {"aten::matmul", "aten::bmm", "aten::baddbmm", "aten::einsum"}
CONVOLUTIONS = {
    "aten::convolution", *(f"aten::conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)),
}  # fmt: skip


def by_index(tensor: Tensor, dim: int, blocks: int = 1) -> Tensor:
    """View of shape (blocks, size of ``dim``, ...): what a tensor holds at each index of a dim."""
    if blocks == 1:
        return tensor.movedim(dim, 0).unsqueeze(0)
    return tensor.unflatten(0, (blocks, -1)).movedim(dim + 1, 1)


def values_at(tensor: Tensor, dim: int, blocks: int, index: Ints) -> Tensor:
    """Copy of what a tensor holds at some indices of a dim, shape (*index.shape, ...)."""
    view = by_index(tensor, dim, blocks)
    block, position = np.divmod(index, view.shape[1])
    return view[torch.as_tensor(block), torch.as_tensor(position)]


def clear(tensor: Tensor, dim: int, blocks: int, index: Ints) -> None:
    """Set to zero, in place, what a tensor holds at some indices of a dim."""
    view = by_index(tensor, dim, blocks)
    block, position = np.divmod(index, view.shape[1])
    view[torch.as_tensor(block), torch.as_tensor(position)] = 0


def select(tensor: Tensor, dim: int, index: Ints) -> Tensor:
    """What stays of a tensor: the indices (k,) of a dim, or in each block of rows those of a row of ``index``."""
    where = torch.as_tensor(index, device=tensor.device)
    if index.ndim == 1:
        return tensor.index_select(dim, where)
    blocks = tensor.unflatten(0, (len(index), -1))
    return torch.cat([block.index_select(dim, kept) for block, kept in zip(blocks, where, strict=True)])


@dataclass(frozen=True)
class Blocks:
    """Which dims of a tensor count their indices anew in every block of rows.

    Attributes:
        count: The number of blocks.
        shape: Leading sizes of the tensor.
        dims: The dims.
    """

    count: int
    shape: tuple[int, ...]
    dims: tuple[int, ...]


def weight_blocks(module: fx.GraphModule) -> dict[int, Blocks]:
    """By identity, the tensors all of whose uses agree: weights of grouped convolutions or of batched products.

    What is computed from a tensor alone before it is used (weight standardisation, a transpose) makes no difference.
    """
    constant: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op in ("get_attr", "call_function") and constant.issuperset(node.all_input_nodes):
            constant.add(node)
    uses: dict[fx.Node, set[Blocks | None]] = {}
    tensors: dict[int, tuple[Tensor, set[Blocks | None]]] = {}
    for node in reversed(module.graph.nodes):
        if node not in constant:
            continue
        uses[node] = set().union(*(uses[u] if u in constant else {_use(node, u)} for u in node.users))
        tensor = attribute(module, str(node.target)) if node.op == "get_attr" else None
        if isinstance(tensor, Tensor):
            tensors.setdefault(id(tensor), (tensor, set()))[1].update(uses[node])
    found = {}
    for key, (tensor, ends) in tensors.items():
        blocks = next(iter(ends), None)
        if len(ends) == 1 and blocks and blocks.count > 1 and blocks.shape == tensor.shape[: len(blocks.shape)]:
            found[key] = blocks
    return found


def _use(node: fx.Node, user: fx.Node) -> Blocks | None:
    """The blocks of a weight as one call reads it; None for a call that has none, or that reads it otherwise."""
    op = op_name(user.target) if user.op == "call_function" else ""
    args = bind(user.target, user.args, user.kwargs) if op in CONVOLUTIONS or op in _PRODUCTS else {}
    shape = tuple(int(n) for n in node.meta["val"].shape) if args else ()
    if op in CONVOLUTIONS and args["weight"] is node and node not in (args["input"], args.get("bias")):
        groups = args.get("groups", 1)  # a node where there are as many groups as images
        return None if isinstance(groups, fx.Node) else Blocks(int(groups), shape[:2], (1,))
    if op in _PRODUCTS and len(shape) == 3:
        dims = _free_by_head(node, args)
        return Blocks(shape[0], shape[:1], dims) if dims else None
    return None


def _free_by_head(node: fx.Node, args: dict[str, Any]) -> tuple[int, ...]:
    """Dims of a batched product's weight (heads, in, out) along which each head may lose other indices."""
    if "equation" not in args:
        return (1, 2)
    inputs, _, out = args["equation"].replace(" ", "").partition("->")
    terms = list(zip(inputs.split(","), args["tensors"], strict=True))
    own = [term for term, operand in terms if operand is node]
    if len(own) != 1 or "." in own[0]:
        return ()
    head = own[0][0]
    shared = any(head in term for term, operand in terms if operand is not node)
    return tuple(d for d in (1, 2) if (head in out if own[0][d] in out else shared))
