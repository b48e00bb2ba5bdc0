"""The nodes of an ONNX graph in one list; those of branches stand in it with the condition under which they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

from compress.checkpoint.onnx.operators.pieces import SELECT
from compress.checkpoint.onnx.registry import Array, Node, attribute_values

_BRANCHES = ((True, "then_branch"), (False, "else_branch"))


@dataclass(frozen=True)
class Scope:
    """Where nodes stand: new names of what their branch defines, and under which conditions they run."""

    names: Mapping[str, str] = field(default_factory=dict)
    when: tuple[tuple[str, bool], ...] = ()

    def all(self, names: Iterator[str]) -> tuple[str, ...]:
        return tuple(self.names.get(name, name) for name in names)


def nodes_of(graph: GraphProto, opset: int, constants: dict[str, Array], scope: Scope | None = None) -> list[Node]:
    """The nodes in order; constants, those of branches too, go into the table that is given.

    Args:
        graph: Of a file or a branch.
        opset: The version of the operators.
        constants: By name; they are added.
        scope: Of the branch.
    """
    scope = scope or Scope()
    for each in graph.initializer:
        constants[scope.names.get(each.name, each.name)] = numpy_helper.to_array(each)
    nodes: list[Node] = []
    for proto in graph.node:
        node = _node(proto, opset, scope)
        if node.kind == "Constant" and (found := _constant(node.attributes)) is not None:
            constants[node.outputs[0]] = found
        elif node.kind == "If" and not node.domain:
            nodes += _both(node, constants, scope)
        else:
            nodes.append(node)
    return nodes


def _node(proto: NodeProto, opset: int, scope: Scope) -> Node:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    name = proto.name or next(iter(proto.output), proto.op_type)
    inputs, outputs = scope.all(iter(proto.input)), scope.all(iter(proto.output))
    return Node(proto.op_type, domain, name, inputs, outputs, attribute_values(proto), opset, proto, scope.when)


def _both(node: Node, constants: dict[str, Array], scope: Scope) -> list[Node]:
    """The nodes of both branches, and the choice between their outputs."""
    made: list[Node] = []
    results: list[tuple[str, ...]] = []
    for truth, branch in _BRANCHES:
        graph = node.attributes[branch]
        own = [name for inner in graph.node for name in inner.output if name]
        own += [each.name for each in graph.initializer]
        # The two may use the same names
        names = {**scope.names, **{name: f"{node.outputs[0]}.{branch}.{name}" for name in own}}
        inside = Scope(names, (*scope.when, (node.inputs[0], truth)))
        made += nodes_of(graph, node.opset, constants, inside)
        results.append(inside.all(each.name for each in graph.output))
    domain, kind = SELECT
    for output, *pair in zip(node.outputs, *results, strict=True):
        made.append(Node(kind, domain, node.name, (node.inputs[0], *pair), (output,), {}, node.opset, None, scope.when))
    return made


def _constant(values: Mapping[str, object]) -> Array | None:
    for name, value in values.items():
        if name == "value":
            return np.asarray(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None
