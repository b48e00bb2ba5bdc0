"""How large the activations of units are, where layers read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from compress.calibration.layers import Layers, op_of
from compress.calibration.problems import BATCH, UNREAD, Reader, readers
from compress.calibration.walk import Walker
from compress.graph import Coupling, Group


def magnitudes(coupling: Coupling, groups: Sequence[Group], inputs: Tensor) -> Iterator[tuple[Group, Tensor | str]]:
    """By group and unit the mean magnitude of the inputs of the layers that read it.

    Args:
        coupling: The analysed network, of one input.
        groups: The groups.
        inputs: Calibration samples.

    Yields:
        A group, and a float64 tensor (units,), the mean over its readers; or the reason why there is none.
    """
    layers = Layers(coupling.program.module)
    found = {group.name: readers(coupling, group, layers) for group in groups}
    means = _means(layers, {r.node for each in found.values() for r in each}, inputs)
    for group in groups:
        if not found[group.name]:
            yield group, UNREAD
            continue
        sizes = [_by_unit(layers, reader, means[reader.node]) for reader in found[group.name]]
        yield group, torch.stack(sizes).mean(0)


def _means(layers: Layers, nodes: set[fx.Node], inputs: Tensor) -> dict[fx.Node, Tensor]:
    """By layer the mean magnitude of each input channel."""
    sums: dict[fx.Node, Tensor] = {}
    counts: dict[fx.Node, int] = defaultdict(int)
    for batch in inputs.split(BATCH):
        walker = Walker(layers.module, [(batch,)])
        for node in walker.nodes:
            if node in nodes:
                (x,) = walker.values(layers.args(node)["input"])
                rows = (x if op_of(node) == "aten::linear" else x.movedim(1, -1)).flatten(0, -2).abs().double()
                sums[node] = sums.get(node, 0) + rows.sum(0)
                counts[node] += len(rows)
            walker.step()
    return {node: total / counts[node] for node, total in sums.items()}


def _by_unit(layers: Layers, reader: Reader, means: Tensor) -> Tensor:
    index = torch.as_tensor(reader.member.index)
    layer = layers.layer(reader.node)
    if reader.member.blocks == 1 and layer.groups > 1:  # every group of the convolution reads these positions
        starts = torch.arange(layer.groups) * layer.weight.shape[1]
        index = (index[:, None] + starts[:, None]).flatten(1)
    return means[index].mean(1)
