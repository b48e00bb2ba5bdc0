"""What the layers behind a group of units compute from them: one least-squares problem for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, fx

from compress.calibration.layers import Layers, is_layer
from compress.calibration.normal import add_symmetric, flat_weight, gram_or_rows
from compress.calibration.walk import Walker, affordable
from compress.graph import Coupling, Group, attribute
from compress.graph.groups import Member

BATCH = 64
MEMORY = 4e9  # bytes of the normal matrices of one group
UNREAD = "no linear layer or convolution sums over its units"


@dataclass(frozen=True)
class Gram:
    """Sums of products of the inputs X of a layer, X'X; kept as X where that is smaller.

    Attributes:
        values: (features, features) - X'X, or (N, features) with N < features - X. float64.
    """

    values: Tensor

    @property
    def rows(self) -> Tensor | None:
        """X, (N, features), if it is known."""
        return self.values if len(self.values) < self.values.shape[1] else None

    def matrix(self) -> Tensor:
        """X'X."""
        if self.rows is None:
            return self.values
        found = self.rows.new_zeros(1, *2 * self.rows.shape[1:])
        add_symmetric(found, self.rows[None], self.rows[None])
        return found[0]

    @property
    def scale(self) -> float:
        """The mean of the diagonal of X'X."""
        diagonal = self.values.diagonal() if self.rows is None else self.rows.square().sum(0)
        return float(diagonal.mean())

    def energy(self, weight: Tensor) -> float:
        """The sum of squares of X W."""
        if self.rows is None:
            return float((weight * (self.values @ weight)).sum())
        return float((self.rows @ weight).square().sum())


@dataclass(frozen=True)
class Problem:
    """A layer that sums over the units of a group (or one group of such a convolution), on calibration data.

    Attributes:
        layer: Name of its weight.
        gram: Sums of products of its inputs, as deviations from their means where the layer's output can be moved by a
            constant.
        weight: (features, outputs), float64.
        units: (n,) - those units of the group that it reads.
        columns: (n, k) - the features that belong to each of them.
    """

    layer: str
    gram: Gram
    weight: Tensor
    units: Tensor
    columns: Tensor

    @property
    def xx(self) -> Tensor:
        """(features, features): the sums of products; computed on each call where the inputs are kept instead."""
        return self.gram.matrix()

    @cached_property
    def energy(self) -> float:
        """The squared output of the layer."""
        return self.gram.energy(self.weight)


@dataclass(frozen=True)
class Reader:
    """A layer that sums over the units of a group, and the dim of its weight that holds them."""

    node: fx.Node
    member: Member


def readers(coupling: Coupling, group: Group, layers: Layers) -> list[Reader]:
    """Linear layers and convolutions that sum over the units of a group, in graph order."""
    by_tensor = {id(attribute(layers.module, m.tensor)): m for m in group.members if m.dim == 1}
    found = []
    for node in coupling.program.module.graph.nodes:
        if is_layer(node) and layers.readable(node):
            member = by_tensor.get(id(layers.tensor(layers.args(node)["weight"])))
            if member is not None:
                found.append(Reader(node, member))
    return found


def problems(
    coupling: Coupling, groups: Sequence[Group], inputs: Tensor, seed: int, most: int
) -> Iterator[tuple[Group, list[Problem] | str]]:
    """The problems of every group, each as soon as the walk over the network has met its last reader.

    Args:
        coupling: The analysed network, of one input.
        groups: The groups.
        inputs: Calibration samples; as many are used as fit into about 4 GB of activations.
        seed: Draws positions of convolutions.
        most: Features that a problem may have.

    Yields:
        A group and its problems, or the reason why there are none.
    """
    module = coupling.program.module
    layers = Layers(module)
    waiting: dict[fx.Node, list[tuple[Group, Reader]]] = defaultdict(list)
    left: dict[str, int] = {}
    for group in groups:
        found = readers(coupling, group, layers)
        reason = _obstacle(layers, found, most)
        if reason:
            yield group, reason
            continue
        left[group.name] = len(found)
        for reader in found:
            waiting[reader.node].append((group, reader))
    walker = Walker(module, [(b,) for b in inputs[: affordable(coupling)].split(BATCH)])
    done: dict[str, list[Problem]] = defaultdict(list)
    generator = torch.Generator().manual_seed(seed)
    for node in walker.nodes:
        if node in waiting:
            grams = _grams(layers, walker, node, coupling, generator)
            for group, reader in waiting[node]:
                done[group.name] += _split(layers, reader, grams)
                left[group.name] -= 1
                if not left[group.name]:
                    yield group, done.pop(group.name)
        if not any(left.values()):
            return
        walker.step()


def _obstacle(layers: Layers, found: Sequence[Reader], most: int) -> str:
    """Why a group has no problems; "" if it has."""
    if not found:
        return UNREAD
    for reader in found:
        features, name = layers.layer(reader.node).features, layers.name(reader.node)
        if features > most:
            return f"{name} has {features} inputs, too many for a normal matrix"
        if _uneven(layers, reader):
            return f"the groups of {name} read its units unevenly"
    need = sum(8 * layers.layer(r.node).groups * layers.layer(r.node).features ** 2 for r in found)
    if need > MEMORY:
        return f"the normal matrices of its readers would take {need / 1e9:.1f} GB"
    return ""


def _grams(layers: Layers, walker: Walker, node: fx.Node, coupling: Coupling, generator: torch.Generator) -> list[Gram]:
    """By group of a convolution."""
    layer = layers.layer(node)
    sizes = coupling.flow.values[node].shape[2:]
    batches = (layer.inputs(x, sizes, generator) for x in walker.values(layers.args(node)["input"]))
    return [Gram(values) for values in gram_or_rows(batches, centred=layers.shift(node) is not None)]


def _split(layers: Layers, reader: Reader, grams: Sequence[Gram]) -> Iterator[Problem]:
    """One problem for each group of a convolution."""
    layer = layers.layer(reader.node)
    weight = flat_weight(layer.weight, layer.groups)
    kernel = layer.features // layer.weight.shape[1]
    positions = torch.as_tensor(reader.member.index)
    for number in range(layer.groups):
        units, columns = _columns(positions, number, layer.weight.shape[1], kernel, reader.member.blocks)
        if len(units):
            yield Problem(layers.name(reader.node), grams[number], weight[number], units, columns)


def _columns(index: Tensor, number: int, width: int, kernel: int, blocks: int) -> tuple[Tensor, Tensor]:
    """The units that the given group of a convolution reads, and their features in it."""
    if blocks > 1:
        inside = index // width == number
        units = inside.any(1).nonzero().flatten()
        index = (index[inside] - number * width).reshape(len(units), -1)
    else:
        units = torch.arange(len(index))
    return units, (index[..., None] * kernel + torch.arange(kernel)).flatten(1)


def _uneven(layers: Layers, reader: Reader) -> bool:
    """Whether the groups of a convolution read more positions of some units than of others."""
    member, width = reader.member, layers.layer(reader.node).weight.shape[1]
    if member.blocks == 1:
        return False
    counts = np.stack([(member.index // width == number).sum(1) for number in range(member.blocks)])
    same = all(len(set(row[row > 0].tolist())) <= 1 for row in counts)
    return member.blocks != layers.layer(reader.node).groups or not same
