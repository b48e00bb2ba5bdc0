"""Multiply-accumulates and parameters of a network after slicing, from sizes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.einsum import einsum_macs, einsum_terms
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules import Call, Kept
from compress.graph.rules.recurrent import CELLS, RECURRENT
from compress.graph.slice import attribute

_PRODUCTS = {"aten::matmul", "aten::mm", "aten::bmm", "aten::_grouped_mm"}
_SUMMED_PRODUCTS = {"aten::addmm": "mat1", "aten::baddbmm": "batch1"}
_TENSOR_PRODUCTS = {"aten::einsum", "aten::tensordot", "aten::inner", "aten::bilinear"}
_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)} | {"aten::convolution"}
_TRANSPOSED = {f"aten::conv_transpose{n}d" for n in (1, 2, 3)}


def macs(coupling: Coupling, alive: NDArray[np.bool_] | None = None) -> int:
    """Multiply-accumulates of one sample; ``alive`` says by label what stays (everything when absent).

    Counted: linear layers, convolutions, matrix products, einsum, attention and recurrent layers (step by step), by
    the usual convention of one multiply-accumulate for each product that is summed; everything else is free.
    """
    kept = Kept(np.ones(coupling.flow.relations.count, dtype=bool) if alive is None else alive)
    total = sum(_call_macs(call, coupling, node, kept) for node, call in coupling.flow.calls.items())
    return total // _batch(coupling)


def _batch(coupling: Coupling) -> int:
    first = next((x for x in coupling.program.inputs if isinstance(x, torch.Tensor) and x.dim()), None)
    return 1 if first is None else int(first.shape[0])


def _call_macs(call: Call, coupling: Coupling, node: object, kept: Kept) -> int:
    def size(value: Value) -> int:
        return math.prod(kept.shape(value))

    op = call.op
    if op in _PRODUCTS or op in _SUMMED_PRODUCTS:
        first = call["self"] if op in _PRODUCTS else call[_SUMMED_PRODUCTS[op]]
        return size(_result(coupling, node)) * kept.shape(first)[-1]
    if op == "aten::linear":
        return size(_result(coupling, node)) * kept.shape(call["input"])[-1]
    if op in _TRANSPOSED or (op == "aten::convolution" and call.get("transposed", False)):
        return size(call["input"]) * math.prod(kept.shape(call["weight"])[1:])
    if op in _CONVOLUTIONS:
        return size(_result(coupling, node)) * math.prod(kept.shape(call["weight"])[1:])
    if op == "aten::scaled_dot_product_attention":
        query, key, value = (kept.shape(call[n]) for n in ("query", "key", "value"))
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if op == "aten::einsum":
        return _einsum(call, kept)
    if op == "aten::tensordot":
        return size(_result(coupling, node)) * math.prod(kept.shape(call["self"])[d] for d in call["dims_self"])
    if op == "aten::inner":
        return size(_result(coupling, node)) * kept.shape(call["self"])[-1]
    if op == "aten::bilinear":
        return math.prod(kept.shape(call["input1"])[:-1]) * size(call["weight"])
    if op in RECURRENT or op in CELLS:
        return _recurrent(call, coupling, node, kept)
    return 0


def _recurrent(call: Call, coupling: Coupling, node: object, kept: Kept) -> int:
    """Every weight of two dims (rows, columns) once in each step of each sequence."""
    found = coupling.flow.values[node]  # type: ignore[index]
    steps = math.prod(kept.shape(found if isinstance(found, Value) else found[0])[:-1])
    weights = call["params"] if "params" in call.args else (call["w_ih"], call["w_hh"])
    return steps * sum(math.prod(kept.shape(weight)) for weight in weights if weight.rank == 2)


def layer_weights(coupling: Coupling) -> list[str]:
    """Names of the parameters that enter a linear, recurrent or convolution layer or a matrix product as its weight."""
    products = {*_PRODUCTS, *_SUMMED_PRODUCTS, *_CONVOLUTIONS, *_TRANSPOSED, *_TENSOR_PRODUCTS, "aten::linear"}
    products |= {*RECURRENT, *CELLS}
    found: dict[str, None] = {}
    for node, call in coupling.flow.calls.items():
        if call.op not in products:
            continue
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                tensor = attribute(coupling.program.module, str(source.target))
                if isinstance(tensor, torch.nn.Parameter) and tensor.dim() > 1:
                    found[str(source.target)] = None
    return list(found)


def _einsum(call: Call, kept: Kept) -> int:
    shapes = [kept.shape(value) for value in call["tensors"]]
    terms, out = einsum_terms(call["equation"], [len(shape) for shape in shapes])
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, n in zip(term, shape, strict=True):
            sizes[letter] = max(n, sizes.get(letter, 1))
    return einsum_macs(terms, out, sizes, call.get("path"))


def _result(coupling: Coupling, node: object) -> Value:
    value: Value = coupling.flow.values[node]  # type: ignore[index]
    return value


def parameters(coupling: Coupling, alive: NDArray[np.bool_] | None = None) -> int:
    """Number of parameter values (buffers and tied copies left out) that the graph reads."""
    return sum(n for tensor, n in _sizes(coupling, alive) if isinstance(tensor, torch.nn.Parameter))


def stored_bytes(coupling: Coupling, alive: NDArray[np.bool_] | None = None) -> int:
    """Bytes of the parameters and buffers that the graph reads, tied copies once, each in its own precision."""
    return sum(n * tensor.element_size() for tensor, n in _sizes(coupling, alive))


def _sizes(coupling: Coupling, alive: NDArray[np.bool_] | None) -> Iterator[tuple[torch.Tensor, int]]:
    """Every tensor that the graph reads, once, and how many of its values stay."""
    kept = {} if alive is None else coupling.kept(alive)
    seen: set[int] = set()
    for node in coupling.program.module.graph.nodes:
        tensor = attribute(coupling.program.module, str(node.target)) if node.op == "get_attr" else None
        if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            shape = list(tensor.shape)
            for dim, index in kept.get(str(node.target), {}).items():
                shape[dim] = index.shape[-1]
            yield tensor, math.prod(shape)
