"""An ONNX graph as a module whose forward runs it with PyTorch, ready to be traced like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.checkpoint.onnx import operators
from compress.checkpoint.onnx.names import valid_names
from compress.checkpoint.onnx.numeric import SHAPES, demanded, evaluate
from compress.checkpoint.onnx.operators.pieces import SELECT
from compress.checkpoint.onnx.prepare import Graph
from compress.checkpoint.onnx.registry import Array, Node, Operator, Untranslatable, axis_of, find
from compress.checkpoint.tensors import register
from compress.errors import ModelError

_ = operators  # importing them fills the table

_LAYERS = (
    *("Conv", "ConvTranspose", "Linear", "Gemm", "MatMul", "PRelu", "BatchNormalization", "LayerNormalization"),
    *("InstanceNormalization", "GroupNormalization", "RMSNormalization", "LSTM", "GRU", "RNN"),
)
_EXPANDING = ("ConstantOfShape", "Expand", "Tile")  # they write the batch into a constant; as operations it stays free
_CANNOT = "prune the network in the framework that it was trained in, or leave this operator out of the exported part"


@dataclass(frozen=True)
class Place:
    """Which model and opset messages speak of."""

    path: str
    opset: int


class Network(nn.Module):
    """The graph of an ONNX file.

    Floating point constants of one dim or more are its parameters, statistics of batch norms its buffers, both under
    the names of the file made valid. Shapes, and what is computed from them, are numbers while it runs.

    Args:
        graph: Prepared.
        inputs: Names of the inputs, in the order of forward's arguments.
        place: For messages.
        batch: The batch that the file fixes; shapes that begin with it follow the batch that is given.

    Where ``only`` is set, it takes inputs of these shapes and no others.

    Running it raises ModelError, which names the operation, where one cannot be expressed.
    """

    def __init__(self, graph: Graph, inputs: tuple[str, ...], place: Place, batch: int | None = None) -> None:
        super().__init__()
        self.steps = [(node, find(node) or _FOLDED) for node in graph.nodes]
        self.input_names, self.output_names = inputs, graph.outputs
        self.place, self.batch = place, batch
        self.only: tuple[tuple[int, ...], ...] | None = None
        self.demanded = demanded(graph.nodes)
        self.names = valid_names(_tensors(graph, self.demanded))
        self.constants = {n: a for n, a in graph.constants.items() if n not in self.names or n in self.demanded}
        for node in graph.nodes:
            if (node.domain, node.kind) == SELECT and not demanded(graph.nodes, node).isdisjoint(inputs):
                raise self._failure(node, "which branch it takes depends on the numbers of the input", "")
        statistics = _statistics(graph)
        for name, valid in self.names.items():
            values = torch.from_numpy(np.array(graph.constants[name]))
            register(self, valid, values if name in statistics else nn.Parameter(values))

    def forward(self, *inputs: Tensor) -> Any:
        if torch.compiler.is_compiling():  # shapes are plain numbers here, which torch.export would take for constants
            raise NotImplementedError("an ONNX graph is recorded, not exported")
        if self.only is not None:
            inputs = tuple(x.view(shape) for x, shape in zip(inputs, self.only, strict=True))
        values: dict[str, Any] = dict(zip(self.input_names, inputs, strict=True))
        values |= {name: self._tensor(valid) for name, valid in self.names.items()}
        current = int(inputs[0].shape[0]) if inputs[0].dim() else 1
        for node, operator in self.steps:
            if any(bool(values.get(name, self.constants.get(name))) != truth for name, truth in node.when):
                continue
            try:
                found = self._run(node, operator, values, current)
            except Untranslatable as error:
                raise self._failure(node, str(error), error.hint) from error
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
                line = next(iter(str(error).splitlines()), "")
                raise self._failure(node, f"{type(error).__name__}: {line}", "") from error
            values |= zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False)
        outputs = [_tensor_of(values.get(name, self.constants.get(name))) for name in self.output_names]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run(self, node: Node, operator: Operator, values: Mapping[str, Any], current: int) -> Any:
        known = [self.constants.get(name, values.get(name)) if name else None for name in node.inputs]
        if (node.domain, node.kind) == SELECT:
            return operator.run(node, known)
        if self.demanded.intersection(node.outputs):
            return _numbers(node, known)
        operands = [values.get(name, self.constants.get(name)) if name else None for name in node.inputs]
        if node.kind in SHAPES or (node.kind not in _EXPANDING and _all_known(operands)):
            return _numbers(node, operands)
        for position in operator.numbers:
            if position < len(node.inputs) and node.inputs[position]:
                operands[position] = known[position]
        if self.batch is not None and current != self.batch:
            operands = _rebatched(node, operands, self.batch, current)
        ready = [
            value if operator.raw or i in operator.numbers or value is None else _tensor_of(value)
            for i, value in enumerate(operands)
        ]
        if any(isinstance(ready[i], Tensor) for i in operator.numbers if i < len(ready)):
            raise Untranslatable("its shape depends on the numbers of the input", "")
        return operator.run(node, ready)

    def _tensor(self, name: str) -> Tensor:
        found: Any = self
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _failure(self, node: Node, reason: str, hint: str) -> ModelError:
        kind = f"{node.domain}.{node.kind}" if node.domain and node.proto is not None else node.kind
        kind = "If" if (node.domain, node.kind) == SELECT else kind
        what = f"{kind} {node.name!r} (opset {self.place.opset})"
        return ModelError(f"{self.place.path}: {what} cannot be read: {reason}", hint or _CANNOT)


def _rebatched(node: Node, operands: list[Any], fixed: int, current: int) -> list[Any]:
    """Shapes that begin with the batch of the file begin with that of the run; what is put beside it is repeated."""
    if node.kind == "Concat" and axis_of(node.get("axis", 1), 2) != 0:
        return [_repeated(each, fixed, current) for each in operands]
    position = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}.get(node.kind)
    target = None if position is None or len(operands) <= position else operands[position]
    if position is None or not isinstance(target, np.ndarray) or target.ndim != 1 or not target.size:
        return operands
    source = operands[0]
    follows = not position or (isinstance(source, Tensor) and source.dim() > 0 and source.shape[0] % current == 0)
    if target[0] != fixed or not follows:
        return operands
    return [*operands[:position], np.array([current, *target[1:]], target.dtype), *operands[position + 1 :]]


def _repeated(value: Any, fixed: int, current: int) -> Any:
    value = _tensor_of(value)
    if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] != fixed or fixed != 1:
        return value
    return value.expand(current, *value.shape[1:])


def _untranslated(node: Node, operands: list[Any]) -> Any:
    raise Untranslatable("the operator has no translation")


_FOLDED = Operator(_untranslated, frozenset(), raw=True)  # it may still compute on what is known


def _tensors(graph: Graph, demanded: frozenset[str]) -> list[str]:
    """Constants that are weights: floating point, with dims, read for their values by something that is traced.

    A single number is one where a layer reads it; elsewhere it is a factor or the like.
    """
    read, layers = set(graph.outputs), set(graph.outputs)
    for node in graph.nodes:
        if demanded.intersection(node.outputs):
            continue
        names = [name for i, name in enumerate(node.inputs) if i not in (find(node) or _FOLDED).numbers]
        read.update(names)
        layers.update(names[1:] if node.kind in _LAYERS else ())
    weights = [n for n, a in graph.constants.items() if a.ndim and n in read and np.issubdtype(a.dtype, np.floating)]
    return [name for name in weights if graph.constants[name].size != 1 or name in layers]


def _statistics(graph: Graph) -> set[str]:
    """Means and variances of batch norms."""
    return {name for node in graph.nodes if node.kind == "BatchNormalization" for name in node.inputs[3:5]}


def _numbers(node: Node, operands: list[Any]) -> tuple[Array, ...]:
    """The outputs of an operation on known numbers, or the shape of a traced tensor."""
    if node.kind in SHAPES and isinstance(operands[0], Tensor):
        sizes = np.array(operands[0].shape, np.int64)
        if node.kind == "Size":
            return (np.array(sizes.prod(), np.int64),)
        return (sizes[node.get("start", 0) : node.get("end", len(sizes))],)
    if not _all_known(operands):
        raise Untranslatable("a shape is computed from it, and it depends on the numbers of the input")
    if node.proto is None:
        raise Untranslatable("a shape is computed from a product with a constant")
    return evaluate(node.proto, node.opset, operands)


def _all_known(operands: list[Any]) -> bool:
    return not any(isinstance(each, Tensor) for each in operands)


def _tensor_of(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
