"""The judge of a network whose path depends on its data: the user's own module with what is removed set to zero.

A detector's graph holds for one set of numbers only, so the oracle of :mod:`compress.graph.verify` cannot run it on
others. Its module can be run: with every removed index of every tensor at zero a removed channel puts out zero and is
read by zero, and the layers that take statistics over channels are told to leave it out.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.graph.blocks import clear
from compress.graph.double import WideCasts, double_by_default, leaves, same_draws, widened, widened_module
from compress.graph.groups import Coupling
from compress.graph.names import graph_name, graph_tensors
from compress.graph.verify import over_kept


def run_masked_module(module: nn.Module, coupling: Coupling, alive: NDArray[np.bool_]) -> list[Tensor]:
    """Outputs of the masked original on the example inputs, in float64.

    Args:
        module: The module that was traced; it is not touched.
        coupling: Its analysis.
        alive: By label, what stays.
    """
    masked = copy.deepcopy(module)
    names = graph_tensors(masked)
    with torch.no_grad():
        for slot in coupling.flow.slots:
            gone = np.flatnonzero(~alive[slot.labels])
            if len(gone) and slot.tensor in names:
                clear(names[slot.tensor], slot.dim, slot.blocks, gone)
    _mask_statistics(masked, coupling, alive)
    with torch.no_grad(), double_by_default(), same_draws(), widened_module(masked) as wide, WideCasts():
        return leaves(coupling.program.call(wide, widened(coupling.program.inputs)))


def _mask_statistics(module: nn.Module, coupling: Coupling, alive: NDArray[np.bool_]) -> None:
    """Normalisation layers whose channels are removed take their statistics over what is kept."""
    slots = {slot.tensor: slot for slot in coupling.flow.slots if slot.dim == 0}
    for path, child in module.named_modules():
        slot = slots.get(graph_name(f"{path}.weight"))
        if slot is None or not isinstance(child, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
            continue
        kept = torch.as_tensor(alive[slot.labels])
        if not bool(kept.all()):
            child.forward = functools.partial(_normalise, child, kept)  # type: ignore[method-assign]


def _normalise(layer: Any, kept: Tensor, x: Tensor) -> Tensor:
    named = {"input": x, "weight": layer.weight, "bias": getattr(layer, "bias", None), "eps": layer.eps}
    if isinstance(layer, nn.GroupNorm):
        mask = kept.reshape(1, -1, *(1,) * (x.dim() - 2))
        return over_kept("aten::group_norm", named | {"num_groups": layer.num_groups}, {"input": mask})
    op = "aten::layer_norm" if isinstance(layer, nn.LayerNorm) else "aten::rms_norm"
    return over_kept(op, named | {"normalized_shape": layer.normalized_shape}, {"input": kept})
