"""Names of weights in an exported file, kept apart from those that the exporter gives to values."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from torch import Tensor, fx, nn

from compress.graph import attribute

_PREFIX = "network."


def apart(module: nn.Module) -> nn.Module:
    """A graph with its weights below one folder; the exporter fails where one is named as it names its own values.

    Anything but a graph of tensors is given back as it is: classes name their weights by paths.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    read = [node for node in module.graph.nodes if node.op == "get_attr"]
    tensors = {f"{_PREFIX}{node.target}": attribute(module, str(node.target)) for node in read}
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        return module
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.op == "get_attr":
            node.target = f"{_PREFIX}{node.target}"
    moved = fx.GraphModule(tensors, graph, class_name="Network")
    moved.training = module.training
    return moved


def placeholders(kind: str, count: int) -> tuple[str, ...]:
    """Names for ports that the exporter gives to nothing else; see :func:`name_ports`."""
    return tuple(f"port:{kind}:{index}" for index in range(count))


def name_ports(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their names; values on the way that are called so get others.

    An exporter that is told the names itself uses them twice: files of ``torch.onnx`` call their outputs as it calls
    its values.

    Args:
        model: An ONNX model whose ports have the names of :func:`placeholders`; it is changed.
        inputs: Names, in order.
        outputs: Names, in order.
    """
    graph = model.graph
    changed = dict(zip((each.name for each in graph.input), inputs, strict=True))
    changed |= dict(zip((each.name for each in graph.output), outputs, strict=True))
    used = {name for node in graph.node for name in (*node.input, *node.output)} | set(changed.values())
    for name in sorted(used.intersection(changed.values()) - set(changed)):
        changed[name] = next(made for n in count(1) if (made := f"{name}_{n}") not in used)
        used.add(changed[name])
    _rename_values(graph, changed)


def _rename_values(graph: Any, changed: Mapping[str, str]) -> None:
    for each in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        each.name = changed.get(each.name, each.name)
    for node in graph.node:
        node.input[:] = [changed.get(name, name) for name in node.input]
        node.output[:] = [changed.get(name, name) for name in node.output]
        for each in node.attribute:
            for inner in (each.g, *each.graphs):
                _rename_values(inner, changed)


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Give the initialisers of an ONNX model their own names again, where no other value has them.

    Args:
        model: Of what :func:`apart` made; it is changed.
        names: By weight, what it shall be called where that is something else.
    """
    graph = model.graph
    taken = {name for node in graph.node for name in node.output} | {each.name for each in graph.input}
    taken |= {each.name for each in graph.initializer}
    changed = {}
    for each in graph.initializer:
        own = each.name.removeprefix(_PREFIX)
        wanted = names.get(own, own)
        if own != each.name and wanted not in taken:
            changed[each.name] = each.name = wanted
            taken.add(wanted)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in changed:
                node.input[i] = changed[name]
    for info in graph.value_info:
        info.name = changed.get(info.name, info.name)
