"""Quantised ONNX files without what running them does not need: of small networks that is a good part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

_SHARED = 1024  # bytes of a constant, above which nobody looks for its like
_SCALED = ("QuantizeLinear", "DequantizeLinear")


def trim(model: Any) -> None:
    """Shorten a file of QuantizeLinear and DequantizeLinear; what it computes stays the same to the bit.

    Shapes of values on the way and the names of nodes go. Zero points of weights and biases that are all zero go, which
    is what DequantizeLinear takes where it has none. Equal scales and zero points become one. They and the values on
    the way get short names, unless inner graphs refer to them; weights, inputs and outputs keep theirs.
    """
    graph = model.graph
    del graph.value_info[:]
    graph.doc_string = ""
    used = {node.domain or "" for node in graph.node}
    kept = [each for each in model.opset_import if each.domain in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return  # inner graphs refer to values by name
    for node in graph.node:
        node.name = ""
    _drop_zero_points(graph)
    _rename(graph, _share(graph))
    _rename(graph, _short_names(graph))


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _drop_zero_points(graph: Any) -> None:
    """Those of constants: the type of a value on the way hangs on its zero point."""
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[0] in constants:
            zero = constants.get(node.input[2])
            if zero is not None and not numpy_helper.to_array(zero).any():
                del node.input[2]


def _share(graph: Any) -> dict[str, str]:
    """Takes away what nothing reads, and scales and zero points that are there already: the names of those instead."""
    ports, scales = _ports(graph), _scales(graph)
    used = {name for node in graph.node for name in node.input} | ports
    found: dict[bytes, str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        if tensor.name in scales - ports and tensor.ByteSize() <= _SHARED:
            first = found.setdefault(_content(tensor), tensor.name)
            if first != tensor.name:
                same[tensor.name] = first
                continue
        if tensor.name in used:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return same


def _content(tensor: Any) -> bytes:
    """Type, shape and values, without the name."""
    nameless = type(tensor)()
    nameless.CopyFrom(tensor)
    nameless.name = ""
    return bytes(nameless.SerializeToString(deterministic=True))


def _short_names(graph: Any) -> dict[str, str]:
    """For the values on the way, and for scales and zero points."""
    ports, scales = _ports(graph), _scales(graph)
    constants = [each.name for each in graph.initializer]
    fixed = ports | {name for name in constants if name not in scales}
    made = [name for node in graph.node for name in node.output if name]
    return dict(zip((name for name in (*made, *constants) if name not in fixed), _fresh(fixed), strict=False))


def _fresh(taken: set[str]) -> Iterator[str]:
    return (name for name in (f"v{number}" for number in count()) if name not in taken)


def _ports(graph: Any) -> set[str]:
    return {each.name for each in (*graph.input, *graph.output)}


def _scales(graph: Any) -> set[str]:
    """Names of scales and zero points."""
    return {name for node in graph.node if node.op_type in _SCALED for name in node.input[1:]}
