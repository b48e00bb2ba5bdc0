"""Tensors under dotted names in a module that is built from a file."""

from __future__ import annotations

from torch import Tensor, nn


def register(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Put `tensor` at the dotted `name` below `root`, as a parameter or a buffer."""
    *folders, leaf = name.split(".")
    for folder in folders:
        if folder not in root._modules:
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor)
