"""Gates behind learned thresholds on the units of layers, in the network for the time of a training."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, ModelError
from compress_plugins.components import Members, Removed, UnitScales, Values, sizes
from compress_plugins.layers import Where, copy_tensors, layer_nodes, makers, place_of, take_over
from compress_plugins.shrinking import Layout, Part
from compress_plugins.thresholds import signed_parts, start_alpha, start_beta

_GATES = "sparse_gates"  # the module that makes their values


class Gates(nn.Module):
    """The values of many gates, one tensor for each place, which are 1 at first. One vector has all alphas.

    Args:
        parts: The shapes of these tensors.
        rectify: Take the rectified gradient.
        like: Has the type and the device of alpha and beta.
    """

    def __init__(self, parts: Sequence[Part], rectify: bool, like: Tensor) -> None:
        super().__init__()
        self.layout, self.rectify = Layout(tuple(parts)), rectify
        sizes = self.layout.sizes
        alphas = [torch.full((n,), start_alpha(n, 1.0), dtype=like.dtype, device=like.device) for n in sizes]
        self.alpha = nn.Parameter(torch.cat(alphas))
        self.beta = nn.Parameter(torch.tensor([start_beta(n) for n in sizes], dtype=like.dtype, device=like.device))
        self.prepared: list[Tensor] = []

    def prepare(self, weights: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """What the next pass takes instead of making it again, as vectors, and its l1 norm: a step needs both.

        Args:
            weights: Of every component in the norm.
        """
        self.prepared, norm = signed_parts(self.alpha, self.beta, self.layout, weights=weights, rectify=self.rectify)
        return [value.view(-1) for value in self.prepared], norm

    def forward(self) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        if torch.is_grad_enabled():  # who only looks leaves it to the training
            found, self.prepared = self.prepared, found
        if not found:
            found, _ = signed_parts(self.alpha, self.beta, self.layout, rectify=self.rectify)
        return tuple(found)


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
        self._asked_for: Removed | None = None
        self._weights: Tensor | None = None  # of all gates: 1 where they are pressed on
        parts = []
        for name, place in self.places.items():
            shape = (len(network.get_parameter(name)), *[1] * place.trailing)
            parts.append(Part(shape, tuple(range(len(shape)))))
        gates = Gates(parts, rectify, network.get_parameter(next(iter(self.places))))
        _multiply(network, [place.node for place in self.places.values()], gates)

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return dict(zip(self.places, (value.view(-1) for value in _gates(network)()), strict=True))

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return dict(zip(self.places, _gates(network).prepare()[0], strict=True))

    def prepared_norm(self, network: fx.GraphModule, only: Removed | None) -> Tensor | None:
        gates = _gates(network)
        if self._weights is None or self._asked_for is not only or self._weights.device != gates.alpha.device:
            chosen = self.indices(only)
            found = {name: torch.zeros(size) for name, size in zip(self.places, gates.layout.sizes, strict=True)}
            for name, index in chosen.items():
                found[name][index] = 1
            self._asked_for, self._weights = only, torch.cat(list(found.values())).to(gates.alpha)
        return gates.prepare(self._weights)[1]

    def worth(self, values: Values) -> dict[str, Tensor]:
        """The gates, which are all 1 at first, times the sizes of the units."""
        return {name: score * self.sizes[name] for name, score in self.scores(values).items()}

    def masks(self, removed: Removed) -> dict[str, Tensor]:
        found = super().masks(removed)
        masks = {name: torch.ones(len(self.context.weight(name)), dtype=torch.bool) for name in self.places}
        for group, units in removed.items():
            for name, index in self.members.get(group, ()):
                masks[name][index[units].flatten()] = False
        return {**found, f"{_GATES}.alpha": torch.cat(list(masks.values()))}

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


def _gates(network: fx.GraphModule) -> Gates:
    found = network.get_submodule(_GATES)
    assert isinstance(found, Gates)
    return found


def _multiply(network: fx.GraphModule, names: Sequence[str], gates: Gates) -> None:
    """Multiply what nodes of these names give by the values of gates."""
    network.add_module(_GATES, gates)
    graph, by_name = network.graph, {node.name: node for node in network.graph.nodes}
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        made = graph.call_module(_GATES, ())
        values = [graph.call_function(operator.getitem, (made, i)) for i in range(len(names))]
    for name, value in zip(names, values, strict=True):
        node = by_name[name]
        with graph.inserting_after(node):
            product = graph.call_function(torch.ops.aten.mul.Tensor, (node, value))
        node.replace_all_uses_with(product, delete_user_cb=lambda user, product=product: user is not product)
    network.recompile()
