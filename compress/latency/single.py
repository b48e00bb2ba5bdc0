"""ONNX models of one layer, as an exported network would hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx import TensorProto, helper, numpy_helper

from compress.latency.layers import Layer, Shape
from compress.latency.sessions import random

IDLE = "Sin"  # on one number: what a node costs that does nothing
_OPSET, _IR = 20, 9  # of the files; ONNX Runtime since 1.17 reads them
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_RECURRENT = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}


def single(layer: Layer) -> bytes:
    """An ONNX file of the layer with random weights; its data come in as inputs ``x0``, ``x1``...

    Beside it there is a node of type ``IDLE`` that works on one number, the input ``idle``.
    """
    build = _Build()
    build.input("idle", (1,))
    build.node(IDLE, ["idle"], "idle_out")
    _WRITERS[layer.op](build, layer)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in build.outputs]
    return serialised(build.nodes, build.inputs, outputs, build.weights)


def serialised(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any]) -> bytes:
    """An ONNX file of a graph."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString())


class _Build:
    """A graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.weights: list[Any] = []
        self.outputs: list[str] = []

    def input(self, name: str, shape: Shape) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, name: str, shape: Shape) -> str:
        self.weights.append(numpy_helper.from_array(random(shape), name))
        return name

    def node(self, op: str, sources: list[str], target: str, inner: bool = False, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, sources, [target], name=target, **attributes))
        if not inner:
            self.outputs.append(target)
        return target


def _convolution(build: _Build, layer: Layer) -> None:
    x, weight = layer.shapes
    transposed = layer.op == "conv_transpose"
    extra = {"output_padding": layer["output_padding"]} if transposed else {}
    outputs = weight[1] * layer["groups"] if transposed else weight[0]
    names = [build.input("x0", x), build.weight("w", weight), build.weight("b", (outputs,))]
    build.node(
        "ConvTranspose" if transposed else "Conv", names, "y", kernel_shape=weight[2:], strides=layer["strides"],
        dilations=layer["dilations"], group=layer["groups"], pads=layer["pads"], **extra,
    )  # fmt: skip


def _linear(build: _Build, layer: Layer) -> None:
    x, (outputs, features) = layer.shapes
    if len(x) == 2:
        names = [build.input("x0", x), build.weight("w", (outputs, features)), build.weight("b", (outputs,))]
        build.node("Gemm", names, "y", transB=1)
    else:
        build.node("MatMul", [build.input("x0", x), build.weight("w", (features, outputs))], "y")


def _product(build: _Build, layer: Layer) -> None:
    first, second = layer.shapes
    names = [build.input("x0", first), (build.weight if layer["constant"] else build.input)("x1", second)]
    build.node("MatMul", names, "y")


def _einsum(build: _Build, layer: Layer) -> None:
    names = [build.input(f"x{i}", shape) for i, shape in enumerate(layer.shapes)]
    build.node("Einsum", names, "y", equation=layer["equation"])


def _attention(build: _Build, layer: Layer) -> None:
    query, key, value = layer.shapes
    transposed = (*key[:-2], key[-1], key[-2])
    scores = build.node("MatMul", [build.input("x0", query), build.input("x1", transposed)], "scores", inner=True)
    weights = build.node("Softmax", [scores], "weights", inner=True, axis=-1)
    build.node("MatMul", [weights, build.input("x2", value)], "y")


def _recurrent(build: _Build, layer: Layer) -> None:
    x, (directions, units) = layer.shapes
    rows = _GATES[layer.op] * units
    names = [
        build.input("x0", x),
        build.weight("w", (directions, rows, x[2])),
        build.weight("r", (directions, rows, units)),
        build.weight("b", (directions, 2 * rows)),
    ]
    extra: dict[str, Any] = {"linear_before_reset": 1} if layer.op == "gru" else {}
    if layer.op.startswith("rnn_"):
        extra["activations"] = [layer.op.removeprefix("rnn_").capitalize()] * directions
    direction = "bidirectional" if directions == 2 else "forward"
    build.node(_RECURRENT[layer.op], names, "y", hidden_size=units, direction=direction, **extra)


_WRITERS: dict[str, Callable[[_Build, Layer], None]] = {
    **dict.fromkeys(("conv", "conv_transpose"), _convolution),
    **dict.fromkeys(_GATES, _recurrent),
    "linear": _linear,
    "matmul": _product,
    "einsum": _einsum,
    "attention": _attention,
}
