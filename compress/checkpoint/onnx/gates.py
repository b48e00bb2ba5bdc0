"""Recurrent layers of a graph, their weights split by direction and ordered by gate as PyTorch has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compress.checkpoint.onnx.operators.recurrent import GATES, OWN, check
from compress.checkpoint.onnx.prepare import Graph
from compress.checkpoint.onnx.registry import Array, Node, Untranslatable


def split_recurrent(graph: Graph) -> None:
    """Rewrite the recurrent layers whose weights are constants that nothing else reads, in place."""
    readers = graph.readers()
    for i, node in enumerate(graph.nodes):
        if node.domain or node.kind not in GATES:
            continue
        weights = [name for name in node.inputs[1:4] if name]
        if all(graph.weight(name) is not None and readers[name] == 1 for name in weights) and _known(node):
            graph.nodes[i] = _split(graph, node)


def _known(node: Node) -> bool:
    try:
        check(node)
    except Untranslatable:
        return False
    return True


def _split(graph: Graph, node: Node) -> Node:
    """The node with its weights taken apart: W (directions, gates H, I), R (..., gates H, H), B (..., 2 gates H)."""
    inputs = [*node.inputs, *[""] * (8 - len(node.inputs))]
    names: list[str] = []
    tables = {name: graph.constants.pop(name) for name in inputs[1:4] if name}
    for side in range(len(tables[inputs[1]])):
        ending = "" if len(tables[inputs[1]]) == 1 else ("_forward", "_backward")[side]
        parts: dict[str, Array] = {}
        for name in inputs[1:3]:
            parts[f"{name}{ending}"] = _ordered(node, tables[name][side])
        if inputs[3]:
            both = np.split(tables[inputs[3]][side], 2)
            parts |= {f"{inputs[3]}{ending}_{j}": _ordered(node, half) for j, half in enumerate(both)}
        graph.constants |= parts
        names += parts
    states = inputs[5:7] if node.kind == "LSTM" else inputs[5:6]
    return replace(node, domain=OWN, inputs=(inputs[0], *states, *names), proto=None)


def _ordered(node: Node, rows: Array) -> Array:
    gates = np.split(rows, len(GATES[node.kind]))
    return np.concatenate([gates[g] for g in GATES[node.kind]])
