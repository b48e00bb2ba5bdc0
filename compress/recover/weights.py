"""The tensors of a network in training: what the optimizer changes, and copies to come back to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compress.training import Training


@dataclass(frozen=True)
class Best:
    """The weights of the best epoch (0: as they came) and how good they are: accuracy, then -loss, on validation."""

    epoch: int
    score: tuple[float, float]
    tensors: Mapping[str, Tensor]


def optimizer(network: fx.GraphModule, settings: Training, undecayed: Collection[str] = ()) -> torch.optim.Optimizer:
    """SGD or AdamW over what may be trained; weights of two dims and more decay, but for those that are named."""
    decays = {p: p.dim() > 1 for p in network.parameters() if p.requires_grad}
    for name in undecayed:
        decays[network.get_parameter(name)] = False
    groups: list[dict[str, Any]] = [
        {"params": [p for p, decay in decays.items() if decay], "weight_decay": settings.weight_decay},
        {"params": [p for p, decay in decays.items() if not decay], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.peak)
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.peak, momentum=settings.momentum, nesterov=nesterov)


def taken(network: fx.GraphModule) -> dict[str, Tensor]:
    """Copies of all parameters and buffers on the CPU, by name."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}


def put(network: fx.GraphModule, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `taken`, in place."""
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            tensor.copy_(tensors[name])
