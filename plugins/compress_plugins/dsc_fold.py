"""The converted network as plain operations: gates in the weights, every layer with its own list of inputs."""

from __future__ import annotations

import copy
import operator

import torch
from torch import Tensor, fx, nn

from compress_plugins.dsc_layers import ShortCircuit, short_circuits

aten = torch.ops.aten
_POOLS = {1: aten.adaptive_max_pool1d.default, 2: aten.adaptive_max_pool2d.default, 3: aten.adaptive_max_pool3d.default}
_LAYERS = {0: aten.linear, 1: aten.conv1d, 2: aten.conv2d, 3: aten.conv3d}


def folded_network(network: fx.GraphModule) -> fx.GraphModule:
    """A copy without short circuits as modules: it computes the same in evaluation.

    A layer whose weight was (outputs, inputs, ...) reads the features that it keeps of every source by a list of their
    indices, in a buffer beside its weight, and its weight has a column for each, multiplied by its gate.
    """
    network = copy.deepcopy(network).eval()
    for module in short_circuits(network).values():
        _write_out(network, module)
    network.recompile()
    return network


def _write_out(network: fx.GraphModule, module: ShortCircuit) -> None:
    modules = ((n, network.get_submodule(str(n.target))) for n in network.graph.nodes if n.op == "call_module")
    (call,) = (node for node, each in modules if each is module)
    reading, layer = module.reading, module.reading.layer
    weight, kept = network.get_parameter(layer.weight), module.kept.bool()
    columns = (module.whole(weight) * module.scale().reshape(1, -1, *(1,) * reading.spatial))[:, kept]
    owner, name = _owner(network, layer.weight)
    setattr(owner, name, nn.Parameter(columns.detach().clone(), weight.requires_grad))
    with network.graph.inserting_before(call):
        pieces = []
        parts = zip(call.args[2:], kept.split(list(reading.sizes)), strict=True)
        for number, (source, part) in enumerate(parts):
            if bool(part.any()):
                pieces.append(_piece(network, module, source, part, number))
        joined = pieces[0] if len(pieces) == 1 else _called(network, aten.cat.default, pieces, reading.dim)
        packet = _LAYERS[reading.spatial]
        target = packet.padding if any(isinstance(each, str) for each in reading.settings) else packet.default
        new = _called(network, target, joined, call.args[0], call.args[1], *reading.settings)
    call.replace_all_uses_with(new)
    network.graph.erase_node(call)
    network.delete_submodule(str(call.target))


def _piece(network: fx.GraphModule, module: ShortCircuit, source: fx.Node, part: Tensor, number: int) -> fx.Node:
    """What is kept of one source, at the resolution of the layer."""
    reading = module.reading
    if not bool(part.all()):
        owner, _ = _owner(network, reading.layer.weight)
        name = f"reads_{number}"
        owner.register_buffer(name, part.nonzero().flatten())
        index = network.graph.get_attr(f"{reading.layer.weight.rpartition('.')[0]}.{name}".removeprefix("."))
        source = _called(network, aten.index_select.default, source, reading.dim, index)
    if reading.extents[number] != reading.extents[-1]:
        pooled = _called(network, _POOLS[reading.spatial], source, list(reading.extents[-1]))
        source = _called(network, operator.getitem, pooled, 0)
    return source


def _called(network: fx.GraphModule, target: object, *args: object) -> fx.Node:
    return network.graph.call_function(target, tuple(args))  # type: ignore[arg-type]


def _owner(network: fx.GraphModule, parameter: str) -> tuple[nn.Module, str]:
    path, _, name = parameter.rpartition(".")
    return network.get_submodule(path), name
