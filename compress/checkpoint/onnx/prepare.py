"""An ONNX graph made ready to be read: constants in one table, moved once instead of at every run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from onnx import ModelProto, defs, helper, inliner, shape_inference

from compress.checkpoint.onnx.branches import nodes_of
from compress.checkpoint.onnx.file import OnnxFile
from compress.checkpoint.onnx.numeric import evaluate
from compress.checkpoint.onnx.registry import OPERATORS, Array, Node

_NUMBERS = ("Range",)  # computed while the graph is read; ONNX defines it by a loop
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")


@dataclass
class Graph:
    """Nodes in order, and constants by name; ``outputs`` are the names that have to be computed."""

    nodes: list[Node]
    constants: dict[str, Array]
    outputs: tuple[str, ...]

    def readers(self) -> Counter[str]:
        """How often each value is read; an output of the model counts as well."""
        return Counter([*(name for node in self.nodes for name in node.inputs), *self.outputs])

    def weight(self, name: str, rank: int | None = None) -> Array | None:
        """A constant of floating point numbers, of ``rank`` dims where that is said; None if the value is none."""
        found = self.constants.get(name)
        if found is None or found.dtype != np.float32 or (rank is not None and found.ndim != rank):
            return None
        return found


def graph_of(file: OnnxFile) -> Graph:
    """The graph of a file with all of its constants in one table."""
    model = _without_functions(file)
    constants: dict[str, Array] = {}
    nodes = nodes_of(model.graph, file.opset, constants)
    graph = Graph(_in_order(nodes), constants, file.outputs)
    _drop_identities(graph)
    _part(graph)
    _move_constants(graph)
    return graph


def _without_functions(file: OnnxFile) -> ModelProto:
    """The model with operators that have no translation, and that ONNX defines by others, written out as those."""
    found = set()
    for node in file.model.graph.node:
        if ("", node.op_type) in OPERATORS or node.op_type in _NUMBERS or node.domain not in ("", "ai.onnx"):
            continue
        if defs.has(node.op_type, file.opset):
            schema: Any = defs.get_schema(node.op_type, file.opset)
            if schema.has_function or schema.has_context_dependent_function:
                found.add((node.domain, node.op_type))
    if not found:
        return file.model
    model = ModelProto()
    model.CopyFrom(file.model)
    listed = {each.name for each in (*model.graph.input, *model.graph.value_info)}
    for each in model.graph.initializer:  # their types decide between the forms of a function
        if each.name not in listed:
            model.graph.value_info.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    try:
        model = shape_inference.infer_shapes(model)
        return inliner.inline_selected_functions(model, sorted(found), inline_schema_functions=True)
    except (RuntimeError, ValueError, shape_inference.InferenceError):  # the operator is named when it is met
        return file.model


def _in_order(nodes: list[Node]) -> list[Node]:
    """Every node behind those that it reads; ONNX asks files for that, and ONNX Runtime takes any order."""
    made = {name for node in nodes for name in node.outputs if name}
    done: set[str] = set()
    sorted_: list[Node] = []
    waiting = nodes
    while waiting:
        late = []
        for node in waiting:
            if all(name in done or name not in made for name in (*node.inputs, *(each for each, _ in node.when))):
                sorted_.append(node)
                done.update(node.outputs)
            else:
                late.append(node)
        if len(late) == len(waiting):  # a cycle, which ONNX Runtime refuses with a reason
            return nodes
        waiting = late
    return sorted_


def _drop_identities(graph: Graph) -> None:
    """They are other names of what they read."""
    names: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = node.renamed(names)
        if node.kind == "Identity" and not node.domain and node.outputs[0] not in graph.outputs:
            names[node.outputs[0]] = node.inputs[0]
        else:
            kept.append(node)
    graph.nodes = kept


def _part(graph: Graph) -> None:
    """A copy of each constant vector for each of its readers.

    Exporters store vectors once that happen to be equal, such as biases that are zero, which says nothing of the
    layers. Matrices that are shared stay shared.
    """
    seen: set[str] = set()
    for i, node in enumerate(graph.nodes):
        inputs = list(node.inputs)
        for position, name in enumerate(inputs):
            value = graph.weight(name)
            if value is None or value.size < 2 or value.size != max(value.shape):
                continue
            if name in seen:
                inputs[position] = _copy_of(name, graph)
                graph.constants[inputs[position]] = value
            seen.add(name)
        graph.nodes[i] = replace(node, inputs=tuple(inputs))


def _copy_of(name: str, graph: Graph) -> str:
    return next(made for n in count(2) if (made := f"{name}_{n}") not in graph.constants)


def _move_constants(graph: Graph) -> None:
    """Constants that are only reshaped or transposed before they are read: as they are read, under their own name.

    One that has several readers stays as it is, for they share it.
    """
    names: dict[str, str] = {}
    kept: list[Node] = []
    readers = graph.readers()
    for node in graph.nodes:
        node = node.renamed(names)
        output = node.outputs[0] if node.outputs else ""
        source = node.inputs[0] if node.inputs else ""
        if node.domain or output in graph.outputs or not source:
            kept.append(node)
        elif _is_move(graph, node) and readers[source] == 1 and node.proto is not None:
            operands = [graph.constants[name] if name else None for name in node.inputs]
            graph.constants[source] = evaluate(node.proto, node.opset, operands)[0]
            names[output] = source
            readers[source] = readers[output]
        else:
            kept.append(node)
    graph.nodes = kept


def _is_move(graph: Graph, node: Node) -> bool:
    return node.kind in _MOVES and all(name in graph.constants or not name for name in node.inputs)
