"""Which parameters a layer uses as its weight, and along which dim of it the layer sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from compress.graph.calls import bind, op_name
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules.recurrent import CELLS, RECURRENT
from compress.graph.slice import attribute

_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)} | {"aten::convolution"}
_TRANSPOSED = {f"aten::conv_transpose{n}d" for n in (1, 2, 3)}
# Operands of a product and the axis along which each is summed.
_PRODUCTS = {
    "aten::matmul": (("self", -1), ("other", -2)),
    "aten::mm": (("self", -1), ("mat2", -2)),
    "aten::bmm": (("self", -1), ("mat2", -2)),
    "aten::addmm": (("mat1", -1), ("mat2", -2)),
    "aten::baddbmm": (("batch1", -1), ("batch2", -2)),
    "aten::_grouped_mm": (("self", -1), ("mat2", -2)),
}
LAYERS = {"aten::linear", "aten::einsum", *_CONVOLUTIONS, *_TRANSPOSED, *_PRODUCTS, *RECURRENT, *CELLS}
_LOOKUPS = {"aten::index", "aten::index_select", "aten::select"}  # an expert of a mixture


@dataclass(frozen=True)
class Operand:
    """One use of a weight.

    Attributes:
        parameters: The parameters of two dims or more that it is made of.
        value: The weight as the operation reads it.
        summed: The axes of ``value`` that are summed; none for an embedding.
        kernel: Whether dims from the third on are kernel positions.
        lookup: Whether rows are looked up.
        reads_input: Whether it meets data that no layer weight has touched.
    """

    parameters: tuple[str, ...]
    value: Value
    summed: tuple[int, ...]
    kernel: bool = False
    lookup: bool = False
    reads_input: bool = False


@dataclass(frozen=True)
class _Use:
    weight: fx.Node
    data: fx.Node | None
    summed: tuple[int, ...]
    kernel: bool = False
    lookup: bool = False


def layer_operands(coupling: Coupling) -> Iterator[Operand]:
    """Every use of a parameter as the weight of a layer, in graph order."""
    module = coupling.program.module
    constant = _constants(module.graph)
    touched: set[fx.Node] = set()
    made_of: dict[fx.Node, tuple[str, ...]] = {}
    for node in module.graph.nodes:
        uses = list(_uses(node, constant)) if node in coupling.flow.calls else []
        # What a layer makes of constants (keys of relative positions) is data, not a weight of the next layer.
        made_of[node] = _parameters(module, node, made_of) if node in constant and not uses else ()
        if any(source in touched for source in node.all_input_nodes):
            touched.add(node)
        for use in uses:
            names, value = made_of[use.weight], coupling.flow.values[use.weight]
            if not names or not isinstance(value, Value):
                continue
            raw = use.data is not None and use.data not in constant and use.data not in touched
            yield Operand(names, value, use.summed, use.kernel, use.lookup, raw)
            touched.add(node)


def output_dims(coupling: Coupling) -> dict[str, int]:
    """By parameter that a layer reads as it is, the dim that its outputs come from: 1 where a weight is (in, out)."""
    graph = coupling.program.module.graph
    constant = _constants(graph)
    found: dict[str, int] = {}
    for node in graph.nodes:
        for use in _uses(node, constant) if node in coupling.flow.calls else ():
            rank = 0 if use.weight.op != "get_attr" else len(use.weight.meta["val"].shape)
            summed = {axis % rank for axis in use.summed} if rank else set()
            kept = [dim for dim in range(2 if use.kernel else rank) if dim not in summed]
            if kept and summed:
                found.setdefault(str(use.weight.target), kept[-1])
    return found


def _constants(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that do not depend on the network's input, but for which part of a constant they look up."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        picked = node.op == "call_function" and op_name(node.target) in _LOOKUPS
        if node.op != "placeholder" and all(source in found for source in (sources[:1] if picked else sources)):
            found.add(node)
    return found


def _parameters(module: fx.GraphModule, node: fx.Node, made_of: dict[fx.Node, tuple[str, ...]]) -> tuple[str, ...]:
    if node.op == "get_attr":
        tensor = attribute(module, str(node.target))
        weight = isinstance(tensor, torch.nn.Parameter) and tensor.dim() > 1
        return (str(node.target),) if weight else ()
    return tuple(dict.fromkeys(name for source in node.all_input_nodes for name in made_of[source]))


def _uses(node: fx.Node, constant: set[fx.Node]) -> Iterator[_Use]:
    if node.op != "call_function":
        return
    op, args = op_name(node.target), bind(node.target, node.args, node.kwargs)
    if op == "aten::linear":
        yield from _use(args["weight"], args["input"], (-1,), constant)
    elif op == "aten::embedding":
        yield from _use(args["weight"], None, (), constant, lookup=True)
    elif op in _TRANSPOSED or (op in _CONVOLUTIONS and args.get("transposed", False)):
        yield from _use(args["weight"], args["input"], (0,), constant, kernel=True)
    elif op in _CONVOLUTIONS:
        yield from _use(args["weight"], args["input"], (1,), constant, kernel=True)
    elif op in _PRODUCTS:
        (left, axis), (right, other) = _PRODUCTS[op]
        yield from _use(args[left], args[right], (axis,), constant)
        rank = len(args[right].meta["val"].shape)
        yield from _use(args[right], args[left], (other if rank > 1 else -1,), constant)
    elif op == "aten::einsum":
        yield from _einsum(args, constant)
    elif op in CELLS:
        yield from _use(args["w_ih"], args["input"], (-1,), constant)
        yield from _use(args["w_hh"], None, (-1,), constant)
    elif op in RECURRENT:
        yield from _recurrent(args, constant)


def _use(weight: Any, data: Any, summed: tuple[int, ...], constant: set[fx.Node], **kind: bool) -> Iterator[_Use]:
    if isinstance(weight, fx.Node) and weight in constant:
        yield _Use(weight, data if isinstance(data, fx.Node) else None, summed, **kind)


def _recurrent(args: dict[str, Any], constant: set[fx.Node]) -> Iterator[_Use]:
    """The weights of all layers; those of the first that read the input come first for each direction."""
    directions = 2 if args["bidirectional"] else 1
    per_direction = len(args["params"]) // (args["num_layers"] * directions)
    for i, weight in enumerate(args["params"]):
        if len(weight.meta["val"].shape) > 1:
            reads_input = i < directions * per_direction and i % per_direction == 0
            yield from _use(weight, args.get("input", args.get("data")) if reads_input else None, (-1,), constant)


def _einsum(args: dict[str, Any], constant: set[fx.Node]) -> Iterator[_Use]:
    equation, tensors = args["equation"].replace(" ", ""), list(args["tensors"])
    terms, arrow, out = equation.partition("->")
    if not arrow or len(tensors) != 2:
        return
    for term, weight, data in zip(terms.split(","), tensors, reversed(tensors), strict=True):
        if "..." not in term:
            summed = tuple(i for i, letter in enumerate(term) if letter not in out)
            yield from _use(weight, data, summed, constant)
