"""Dims that count their indices anew in every block of rows, such as the input dim of a grouped convolution.

The weight of a convolution with g groups is (O, I / g, *kernel). Index j of dim 1 is another input channel in each of
the g blocks of O / g rows, so each block may lose other indices; all lose the same number. Such a dim has ``blocks``
times as many indices as its size says: index ``block * size + j``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.calls import bind, op_name
from compress.graph.trace import attribute

Ints = NDArray[np.int64]

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


Use = tuple[int, ...]


def weight_blocks(module: fx.GraphModule) -> dict[int, int]:
    """By identity of the tensor the number of groups, for all that only become weights of grouped convolutions.

    What is computed from a tensor before it is used as a weight (weight standardisation) makes no difference.
    """
    uses: dict[fx.Node, set[Use]] = {}
    tensors: dict[int, tuple[Tensor, set[Use]]] = {}
    for node in reversed(module.graph.nodes):
        uses[node] = {use for user in node.users for use in _uses(node, user, uses)}
        tensor = attribute(module, str(node.target)) if node.op == "get_attr" else None
        if isinstance(tensor, Tensor):
            tensors.setdefault(id(tensor), (tensor, set()))[1].update(uses[node])
    found = {}
    for key, (tensor, ends) in tensors.items():
        groups, *rows_and_columns = next(iter(ends), (0,))
        if len(ends) == 1 and groups > 1 and rows_and_columns == list(tensor.shape[:2]):
            found[key] = groups
    return found


def _uses(node: fx.Node, user: fx.Node, uses: dict[fx.Node, set[Use]]) -> set[Use]:
    """What becomes of a tensor in a call: (groups, rows, columns) of a convolution's weight, (0,) for all else."""
    if user.op != "call_function":
        return {(0,)}
    if op_name(user.target) not in CONVOLUTIONS:
        return uses[user]
    args = bind(user.target, user.args, user.kwargs)
    if args["weight"] is not node or node in (args["input"], args.get("bias")):
        return {(0,)}
    groups = args.get("groups", 1)
    if isinstance(groups, fx.Node):  # as many groups as images: such a weight is computed, no parameter alone
        return {(0,)}
    return {(int(groups), *(int(n) for n in node.meta["val"].shape[:2]))}
