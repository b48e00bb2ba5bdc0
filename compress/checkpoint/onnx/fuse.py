"""Products with constants as linear layers, and biases where they belong.

Exporters write one layer in many ways. Here a product with a constant matrix and the bias behind it become one linear
operation whose weight is (out, in), and a bias that is added behind a convolution becomes its own. Both are what
methods and refits know how to handle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from compress.checkpoint.onnx.operators.products import LINEAR
from compress.checkpoint.onnx.prepare import Graph
from compress.checkpoint.onnx.registry import Node

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def fuse(graph: Graph) -> tuple[str, ...]:
    """Rewrite the graph in place; names of the weights that are transposed now."""
    turned = _turn(graph)
    made = {name: node for node in graph.nodes for name in node.outputs}
    readers = graph.readers()
    graph.nodes = [_linear(graph, node, made, turned, readers) for node in graph.nodes]
    _take_biases(graph)
    _drop_unread(graph)
    return turned


def _is(node: Node, *kinds: str) -> bool:
    return not node.domain and node.kind in kinds


def _turn(graph: Graph) -> tuple[str, ...]:
    """Transpose the (in, out) matrices that products alone read; their names."""
    uses: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for position, name in enumerate(node.inputs):
            uses.setdefault(name, []).append((node, position))
    turned = []
    for name, found in uses.items():
        if graph.weight(name, 2) is None or name in graph.outputs:
            continue
        if all(position == 1 and _reads_in_out(node) for node, position in found):
            graph.constants[name] = np.ascontiguousarray(graph.constants[name].T)
            turned.append(name)
    return tuple(turned)


def _reads_in_out(node: Node) -> bool:
    return _is(node, "MatMul") or (_is(node, "Gemm") and not node.get("transA", 0) and not node.get("transB", 0))


def _linear(graph: Graph, node: Node, made: dict[str, Node], turned: tuple[str, ...], readers: Counter[str]) -> Node:
    """The node as a linear operation, where it is a product with a constant matrix; else as it is."""
    if not _is(node, "MatMul", "Gemm") or node.get("transA", 0):
        return node
    weight = _out_in(graph, node, made, turned)
    if weight is None:
        return node
    inputs = [node.inputs[0], weight]
    if _is(node, "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if not _scaled(graph, node, weight, bias, readers):
            return node if weight not in turned else replace(node, attributes={**node.attributes, "transB": 1})
        if bias:
            inputs.append(bias)
    return replace(node, domain=LINEAR[0], kind=LINEAR[1], inputs=tuple(inputs), attributes={}, proto=None)


def _out_in(graph: Graph, node: Node, made: dict[str, Node], turned: tuple[str, ...]) -> str | None:
    """The weight (out, in) that a product reads: one that was turned, or one that the file transposes for it."""
    name = node.inputs[1]
    if name in turned or (node.get("transB", 0) and graph.weight(name, 2) is not None):
        return name
    source = made.get(name)
    if source is None or not _is(source, "Transpose") or node.get("transB", 0):
        return None
    return source.inputs[0] if graph.weight(source.inputs[0], 2) is not None else None


def _scaled(graph: Graph, node: Node, weight: str, bias: str, readers: Counter[str]) -> bool:
    """Bring the factors of a Gemm into its constants, and its bias into the shape (out,); False where that fails."""
    width = graph.constants[weight].shape[0]
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if bias and (graph.weight(bias) is None or graph.constants[bias].size != width):
        return False
    plain = not bias or graph.constants[bias].ndim == 1
    if (alpha != 1 and readers[weight] > 1) or (bias and readers[bias] > 1 and (beta != 1 or not plain)):
        return False
    if bias and graph.constants[bias].shape[-1] != width:  # (out, 1): of the rows
        return False
    graph.constants[weight] = graph.constants[weight] * np.float32(alpha) if alpha != 1 else graph.constants[weight]
    if bias:
        found = graph.constants[bias].reshape(-1)
        graph.constants[bias] = found * np.float32(beta) if beta != 1 else found
    return True


def _take_biases(graph: Graph) -> None:
    """A constant that is added behind a layer without a bias is its bias."""
    readers = graph.readers()
    layers = {node.outputs[0]: i for i, node in enumerate(graph.nodes) if _width(graph, node) is not None}
    kept: list[Node | None] = list(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if not _is(node, "Add"):
            continue
        for layer, bias in (node.inputs, node.inputs[::-1]):
            place = layers.get(layer)
            owner = None if place is None else kept[place]
            if owner is None or place is None or readers[layer] > 1 or not _fits(graph, owner, bias, readers):
                continue
            graph.constants[bias] = graph.constants[bias].reshape(-1)
            kept[place] = replace(owner, inputs=(*owner.inputs[:2], bias), outputs=node.outputs)
            kept[i] = None
            break
    graph.nodes = [node for node in kept if node is not None]


def _width(graph: Graph, node: Node) -> int | None:
    """Outputs of a layer without a bias; None if the node is none."""
    weight = graph.weight(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or any(node.inputs[2:]):
        return None
    if (node.domain, node.kind) == LINEAR or _is(node, "Conv"):
        return int(weight.shape[0])
    return int(weight.shape[1]) * int(node.get("group", 1)) if _is(node, "ConvTranspose") else None


def _fits(graph: Graph, layer: Node, bias: str, readers: Counter[str]) -> bool:
    """Whether a constant has one number for each output of the layer, and stands along that dim."""
    found, width = graph.weight(bias), _width(graph, layer)
    if found is None or found.size != width:
        return False
    behind = graph.constants[layer.inputs[1]].ndim - 2 if _is(layer, *_CONVOLUTIONS) else 0
    along = found.ndim > behind and found.shape[-1 - behind] == width
    # More than two dims may be more than the product has
    return along and found.ndim <= behind + 2 and (found.ndim == 1 or readers[bias] == 1)


def _drop_unread(graph: Graph) -> None:
    """Without the nodes and constants that nothing reads any more."""
    needed: set[str] = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(_read(node))
    graph.nodes = kept[::-1]
    graph.constants = {name: value for name, value in graph.constants.items() if name in needed}


def _read(node: Node) -> list[str]:
    return [name for name in node.inputs if name]
