"""Layers that read every source of their stack through gates, for the time of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compress.plugin import bind, op_name
from compress_plugins.dsc_stacks import Layer, Stack

Form = Literal["ffn", "gsc", "dsc"]
Gating = Literal["effective", "contribution", "threshold", "ste", "bernoulli"]

GATE = 1.0  # what every gate starts with: sigma(1) = 0.7310586
_POOL = {1: functional.adaptive_max_pool1d, 2: functional.adaptive_max_pool2d, 3: functional.adaptive_max_pool3d}
_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class Reading:
    """What a layer reads and how.

    Attributes:
        layer: The layer.
        sources: Names of the nodes it reads, oldest first; the last is the one it has always read.
        sizes: Features of each.
        spatial: Dims behind the features.
        extents: Of the positions of each, () for linear layers.
        settings: Stride, padding and dilation of a convolution.
    """

    layer: Layer
    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    spatial: int
    extents: tuple[tuple[int, ...], ...]
    settings: tuple[Any, ...] = ()

    @property
    def width(self) -> int:
        """Features of all sources."""
        return sum(self.sizes)

    @property
    def dim(self) -> int:
        return 1 if self.spatial else -1


class ShortCircuit(nn.Module):
    """One layer D_n = (sigma(C) * [D_0, ..., D_(n-1)]) W + b, from DSC, eq. 7; without gates from GSC, eq. 5.

    The columns that the layer has always had stay in the network's own weight; those of the short circuits are here,
    oldest source first, and start at zero.

    Args:
        reading: What is read.
        outputs: Of the layer.
        kernel: Its kernel's size, for convolutions.
        like: A tensor of the same type and on the same device.
        gated: Whether there is a gate on every input.
        gating: How the gates act before inputs are chosen.
        tau: Below which a gate is shut, for ``ste``.

    Attributes:
        kept: (width,), 1 where an input is read, 0 where it has been dropped.
        chosen: Whether inputs have been chosen: then no gate is drawn at random any more.
    """

    def __init__(
        self,
        reading: Reading,
        outputs: int,
        kernel: Sequence[int],
        like: Tensor,
        gated: bool,
        gating: Gating,
        tau: float,
    ) -> None:
        super().__init__()
        self.reading, self.gating, self.tau, self.chosen = reading, gating, tau, False
        kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        older = reading.width - reading.sizes[-1]
        self.older = nn.Parameter(torch.zeros(outputs, older, *kernel, **kind)) if older else None
        self.gates = nn.Parameter(torch.full((reading.width,), GATE, **kind)) if gated else None
        self.register_buffer("kept", torch.ones(reading.width, **kind))
        self.kept: Tensor

    def open(self) -> Tensor:
        """sigma(C) of the inputs that are kept, 0 elsewhere: (width,)."""
        return self.kept if self.gates is None else torch.sigmoid(self.gates) * self.kept

    def scale(self) -> Tensor:
        """What every input is multiplied with, (width,); at random in training with ``bernoulli``."""
        opened = self.open()
        if self.gates is None:
            return opened
        if self.gating == "ste":
            shut = torch.where(opened >= self.tau, opened, 0.0)
            return opened + (shut - opened).detach()
        if self.gating == "bernoulli" and self.training and not self.chosen:
            drawn = torch.bernoulli(opened.detach())
            return opened + (drawn - opened).detach()
        return opened

    def whole(self, weight: Tensor) -> Tensor:
        """All columns, (outputs, width, ...), without gates."""
        return weight if self.older is None else torch.cat((self.older, weight), 1)

    def joined(self, *sources: Tensor) -> Tensor:
        """The features of all sources side by side, feature maps at the resolution of the last."""
        reading = self.reading
        return torch.cat([aligned(x, sources[-1].shape[2:], reading.spatial) for x in sources], reading.dim)

    def forward(self, weight: Tensor, bias: Tensor | None, *sources: Tensor) -> Tensor:
        """What the layer gives for the features of all sources."""
        reading = self.reading
        columns = self.whole(weight) * self.scale().reshape(1, -1, *(1,) * reading.spatial)
        joined = self.joined(*sources)
        if not reading.spatial:
            return functional.linear(joined, columns, bias)
        convolved: Tensor = _CONV[reading.spatial](joined, columns, bias, *reading.settings)
        return convolved


def aligned(x: Tensor, extent: Sequence[int], spatial: int) -> Tensor:
    """The feature maps at another resolution, by adaptive max pooling."""
    if not spatial or tuple(x.shape[2:]) == tuple(extent):
        return x
    pooled: Tensor = _POOL[spatial](x, list(extent))
    return pooled


def readings(network: fx.GraphModule, stack: Stack, form: Form) -> list[Reading]:
    """What every layer of a stack reads that may change its inputs."""
    nodes = {node.name: node for node in network.graph.nodes}
    found = []
    for n, layer in enumerate(stack.layers):
        if layer.consumes:
            first = n if form == "ffn" else 0
            sources = tuple(each.reads for each in stack.layers[first : n + 1])
            extents = tuple(_extent(nodes[each]) if stack.spatial else () for each in sources)
            settings = _settings(nodes[layer.node])
            found.append(Reading(layer, sources, stack.sizes[first : n + 1], stack.spatial, extents, settings))
    return found


def _extent(node: fx.Node) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape[2:])


def _settings(node: fx.Node) -> tuple[Any, ...]:
    """Stride, padding and dilation of a convolution; nothing of a linear layer."""
    if op_name(node.target) == "aten::linear":
        return ()
    args = bind(node.target, node.args, dict(node.kwargs))
    dims = args["weight"].meta["val"].dim() - 2
    return tuple(args.get(name, [other] * dims) for name, other in (("stride", 1), ("padding", 0), ("dilation", 1)))


def convert(network: fx.GraphModule, stacks: Sequence[Stack], form: Form, gating: Gating, tau: float) -> None:
    """Let layers read all sources of their stacks, in place; what the network computes stays the same."""
    nodes = {node.name: node for node in network.graph.nodes}
    every = [reading for stack in stacks for reading in readings(network, stack, form)]
    for number, reading in enumerate(every):
        weight = network.get_parameter(reading.layer.weight)
        module = ShortCircuit(reading, weight.shape[0], weight.shape[2:], weight, form == "dsc", gating, tau)
        with torch.no_grad():
            weight.div_(module.open()[0])
        name = f"short_circuit_{number}"
        network.add_module(name, module)
        old = nodes[reading.layer.node]
        args = bind(old.target, old.args, dict(old.kwargs))
        with network.graph.inserting_before(old):
            sources = (nodes[each] for each in reading.sources)
            new = network.graph.call_module(name, (args["weight"], args.get("bias"), *sources))
        new.meta = dict(old.meta)
        old.replace_all_uses_with(new)
        network.graph.erase_node(old)
        nodes[reading.layer.node] = new
    network.recompile()


def short_circuits(network: fx.GraphModule) -> dict[str, ShortCircuit]:
    """The converted layers of a network by the name of their layer, in graph order."""
    found = (network.get_submodule(str(node.target)) for node in network.graph.nodes if node.op == "call_module")
    return {module.reading.layer.name: module for module in found if isinstance(module, ShortCircuit)}


def draw(network: fx.GraphModule, module: ShortCircuit, generator: torch.Generator) -> None:
    """A layer as it starts from scratch: uniform within 1 / sqrt(of all its inputs), all gates open alike, in place."""
    layer = module.reading.layer
    weight = network.get_parameter(layer.weight)
    bound = 1 / math.sqrt(module.reading.width * math.prod(weight.shape[2:]))
    tensors = [module.older, weight, None if layer.bias is None else network.get_parameter(layer.bias)]
    with torch.no_grad():
        for tensor in tensors:
            if tensor is not None:
                tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))
        if module.gates is not None:
            module.gates.fill_(GATE)
