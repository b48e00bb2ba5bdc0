"""Channels as components by the scales of their batch norms, plain or behind learned thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, Group, ModelError, insert_module
from compress_plugins.components import Members, Thresholded, UnitScales
from compress_plugins.layers import copy_tensors, makers, op, parameter
from compress_plugins.thresholds import alpha_of

_FAR = 100.0  # standard deviations: the largest constant that is kept inside the scale


class Shift(nn.Module):
    """What batch norm adds: a b, and a constant that is withdrawn where b would be too large."""

    def __init__(self, constant: Tensor) -> None:
        super().__init__()
        self.register_buffer("first", constant)
        self.register_buffer("constant", constant.clone())

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.addcmul(self.get_buffer("constant"), one, other)

    def withdraw(self, share: float) -> None:
        self.get_buffer("constant").copy_(share * self.get_buffer("first"))


class Norms(UnitScales):
    """Scales of batch norms, as they are: network slimming's.

    Args:
        context, network: The network as it came, and the copy that is trained.
        partly: Whether units count whose scales cannot switch them off, as layers without a norm make them as well.

    Raises:
        ModelError: There are none.
    """

    def __init__(self, context: Context, network: fx.GraphModule, partly: bool = False) -> None:
        norms = batch_norms(network)
        found = {group.name: sites for group in context.groups if (sites := _members(group, norms))}
        members = found if partly else _switchable(context, network, found, norms)
        if not members:
            raise ModelError(
                "no units can be switched off by the scales of batch norms",
                "--mode diffsparse puts gates of its own on the units of such a network",
            )
        super().__init__(context, members)
        self.norms = {name: node for name, node in norms.items() if name in self.removable}

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: network.get_parameter(name) for name in self.norms}


class ThresholdedNorms(Norms):
    """Scales of batch norms behind thresholds, one for each norm, the shift inside: y = a (x + b).

    The norm's weight holds alpha and its bias b from now on, started so that the network computes what it did. A
    channel with |b| above 100, or without a scale, would need an inside shift without bounds; its shift starts as a
    constant beside the scale instead.
    """

    def __init__(self, context: Context, network: fx.GraphModule, rectify: bool) -> None:
        super().__init__(context, network)
        self.far: list[str] = []  # norms that have such constants
        self.biases = {name: str(parameter(network, node.args[2])) for name, node in self.norms.items()}
        for name, node in self.norms.items():
            scale, shift = network.get_parameter(name), network.get_parameter(self.biases[name])
            with torch.no_grad():
                far = shift.abs() > _FAR * scale.abs()
                constant = torch.where(far, shift, 0.0)
                shift.copy_(torch.where(far, 0.0, shift / torch.where(scale == 0, 1.0, scale)))
                scale.copy_(alpha_of(scale.double()))
            if bool(far.any()):
                self.far.append(name)
            _inside(network, node, Thresholded(len(scale), rectify, scale), Shift(constant), _named(name))

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: network.get_submodule(_named(name))(network.get_parameter(name)) for name in self.norms}

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: _threshold(network, name).prepare(network.get_parameter(name)) for name in self.norms}

    def withdraw(self, network: fx.GraphModule, share: float) -> None:
        with torch.no_grad():
            for name in self.far:
                self._shift(network, name).withdraw(share)

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        plain = self.context.copy()
        copy_tensors(network, plain)
        with torch.no_grad():
            for name, scale in self.values(network).items():
                shift, bias = self._shift(network, name), self.biases[name]
                plain.get_parameter(bias).copy_(shift(network.get_parameter(bias), scale))
                plain.get_parameter(name).copy_(scale)
        return plain

    @staticmethod
    def _shift(network: fx.GraphModule, name: str) -> Shift:
        found = network.get_submodule(f"{_named(name)}_shift")
        assert isinstance(found, Shift)
        return found


def _inside(network: fx.GraphModule, norm: fx.Node, scale: nn.Module, shift: nn.Module, name: str) -> None:
    """Let a batch norm read its scale and its shift from modules."""
    weight, bias = norm.args[1], norm.args[2]
    assert isinstance(weight, fx.Node) and isinstance(bias, fx.Node)
    made = insert_module(network, name, scale, weight)
    first, last = sorted((made, bias), key=list(network.graph.nodes).index)
    norm.update_arg(2, insert_module(network, f"{name}_shift", shift, last, first, users=()))
    network.recompile()


def _threshold(network: fx.GraphModule, name: str) -> Thresholded:
    found = network.get_submodule(_named(name))
    assert isinstance(found, Thresholded)
    return found


def _named(name: str) -> str:
    return f"sparse_scale_{name.replace('.', '_')}"


def batch_norms(network: fx.GraphModule) -> dict[str, fx.Node]:
    """Batch norms by the names of their scales: those whose scale and shift are trained, and not zero altogether."""
    found = {}
    for node in network.graph.nodes:
        if op(node) == "batch_norm":
            scale, shift = (parameter(network, arg) for arg in node.args[1:3])
            trained = all(name and network.get_parameter(name).requires_grad for name in (scale, shift))
            if scale and trained and bool(network.get_parameter(scale).any()):
                found[scale] = node
    return found


def _switchable(context: Context, network: fx.GraphModule, found: Members, norms: Mapping[str, fx.Node]) -> Members:
    """Groups whose units put out nothing when their scales are zero.

    That is so where every layer that makes a unit has a norm behind it, or whoever reads the unit one in front of it.
    Of other groups half of the units are switched off on trial, to see whether they are dead.
    """
    groups = {group.name: group for group in context.groups}
    trial = {name: sites for name, sites in found.items() if len(sites) < len(makers(context, groups[name]))}
    if not trial:
        return found
    copy, off = context.copy(), {name: (groups[name].size + 1) // 2 for name in trial}
    with torch.no_grad():
        for name, sites in trial.items():
            for scale, index in sites:
                for each in (scale, str(parameter(network, norms[scale].args[2]))):
                    copy.get_parameter(each)[index[: off[name]].flatten()] = 0
    dead = context.on(copy).remove_dead().removed
    bad = {name for name, count in off.items() if not {*range(count)} <= {*dead.get(name, [])}}
    return {name: sites for name, sites in found.items() if name not in bad}


def _members(group: Group, norms: Collection[str]) -> list[tuple[str, Tensor]]:
    own = [m for m in group.members if m.tensor in norms and m.dim == 0 and m.blocks == 1]
    return [(m.tensor, torch.as_tensor(m.index).reshape(group.size, -1)) for m in own]
