"""Gates behind learned thresholds on the units of layers, in the network for the time of a training."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, ModelError, insert_module
from compress_plugins.components import Members, Removed, Thresholded, UnitScales, Values, sizes
from compress_plugins.layers import Where, copy_tensors, layer_nodes, makers, place_of, take_over
from compress_plugins.thresholds import start_alpha


class Gate(Thresholded):
    """Multiplies by a of equation 12, which is 1 at first.

    Args:
        n: Components.
        trailing: Dims behind them in what is multiplied.
        rectify: Take the rectified gradient.
        like: Has the type and the device of alpha and beta.
    """

    def __init__(self, n: int, trailing: int, rectify: bool, like: Tensor) -> None:
        super().__init__(n, rectify, like)
        self.alpha = nn.Parameter(torch.full((n,), start_alpha(n, 1.0), dtype=like.dtype, device=like.device))
        self.trailing = trailing

    def values(self) -> Tensor:
        """(n,)"""
        return super().forward(self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.values().reshape(-1, *[1] * self.trailing)


class UnitGates(UnitScales):
    """A gate on every unit of the hidden layers, before or after the activation behind them.

    Before it, and behind a batch norm where there is one, what a layer adds lies inside the gate, so that a unit whose
    gate is zero puts out what the activation makes of zero.

    Raises:
        ModelError: There is no layer to put gates on.
    """

    noun = "units"

    def __init__(self, context: Context, network: fx.GraphModule, rectify: bool, where: Where) -> None:
        super().__init__(context, made_by_layers(context, network))
        self.sizes = {group.name: sizes(context, group) for group in context.groups if group.name in self.members}
        layers = layer_nodes(network)
        self.places = {name: place_of(network, layers[name], where) for name in self.removable}
        by_name = {node.name: node for node in network.graph.nodes}
        for name, place in self.places.items():
            weight = network.get_parameter(name)
            gate = Gate(len(weight), place.trailing, rectify, weight)
            insert_module(network, _named(name), gate, by_name[place.node])

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: _gate(network, name).values() for name in self.places}

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: gate.prepare(gate.alpha) for name in self.places for gate in [_gate(network, name)]}

    def worth(self, values: Values) -> dict[str, Tensor]:
        """The gates, which are all 1 at first, times the sizes of the units."""
        return {name: score * self.sizes[name] for name, score in self.scores(values).items()}

    def masks(self, removed: Removed) -> dict[str, Tensor]:
        found = super().masks(removed)
        for group, units in removed.items():
            for name, index in self.members.get(group, ()):
                alpha = f"{_named(name)}.alpha"
                mask = found.setdefault(alpha, torch.ones(len(self.context.weight(name)), dtype=torch.bool))
                mask[index[units].flatten()] = False
        return found

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        plain = self.context.copy()
        copy_tensors(network, plain)
        for name, value in self.values(network).items():
            take_over(plain, self.places[name], value.detach(), _named(name))
        plain.recompile()
        return plain


def made_by_layers(context: Context, network: fx.GraphModule) -> Members:
    """By group that linear layers and convolutions alone make, their weights and the rows that its units hold.

    Raises:
        ModelError: There is no such group.
    """
    layers = layer_nodes(network)
    found = {}
    for group in context.groups:
        own = makers(context, group)
        if own and all(m.tensor in layers and m.dim == 0 and m.blocks == 1 for m in own):
            found[group.name] = [(m.tensor, torch.as_tensor(m.index).reshape(group.size, -1)) for m in own]
    if not found:
        raise ModelError("no linear layer or convolution makes units that can go", "`compress inspect` lists what can")
    return found


def _named(name: str) -> str:
    return f"sparse_gate_{name.replace('.', '_')}"


def _gate(network: fx.GraphModule, name: str) -> Gate:
    found = network.get_submodule(_named(name))
    assert isinstance(found, Gate)
    return found
