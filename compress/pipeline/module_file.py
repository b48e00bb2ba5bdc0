"""What ``--keep-module`` leaves: the smaller state dict of the user's class, and how that has to be called."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import safetensors.torch
import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from compress.checkpoint.reload import largest_error
from compress.errors import ModelError
from compress.graph import ModuleSlice
from compress.pipeline.bundle import RELOAD_TOLERANCE, state_dict_file
from compress.report import Argument, ModuleFile

NAME = "module.safetensors"


def module_file(
    in_place: ModuleSlice | None, network: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[bytes, ModuleFile] | None:
    """The file and what the report says of it; None where the module's code cannot represent the slice.

    Args:
        in_place: The slice of the module.
        network: The same as a graph; its values are newer where layers were refitted or trained.
        inputs: What the two are compared on, after the file was loaded into a module without values.

    Raises:
        ModelError: They differ.
    """
    if in_place is None or in_place.module is None:
        return None
    content = state_dict_file(in_place.module, network)
    error = _reload_error(in_place.module, content, network, inputs)
    if error > RELOAD_TOLERANCE:
        raise ModelError(f"the smaller module differs from the written network by {error:.1e}")
    arguments = tuple(_argument(in_place.module, path, *sizes) for path, sizes in in_place.changed.items())
    return content, ModuleFile(NAME, error, arguments)


def _argument(module: nn.Module, path: str, before: Any, after: Any) -> Argument:
    owner, _, name = path.rpartition(".")
    return Argument(owner, type(module.get_submodule(owner)).__name__, name, before, after)


def _reload_error(module: nn.Module, content: bytes, network: fx.GraphModule, inputs: Sequence[Tensor]) -> float:
    again = copy.deepcopy(module).cpu().eval()
    with torch.no_grad():
        for tensor in (*again.parameters(), *again.buffers()):
            tensor.zero_()
        state = safetensors.torch.load(content)
        # Tied tensors are there once, buffers that are not part of a state dict not at all
        names = {id(t): name for name, t in again.state_dict(keep_vars=True).items() if name in state}
        whole = {n: state[names[id(t)]] for n, t in again.state_dict(keep_vars=True).items() if id(t) in names}
        again.load_state_dict(whole)
        hidden = {n: b for n, b in module.named_buffers() if n not in whole}
        for name, buffer in again.named_buffers():
            if name in hidden:
                buffer.copy_(hidden[name])
        found, expected = (m(*(x.clone() for x in inputs)) for m in (again, network.cpu()))
    return largest_error(pytree.tree_leaves(found), pytree.tree_leaves(expected))
