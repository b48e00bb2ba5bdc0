"""An ONNX file: parsed, and refused with the reason where it cannot be pruned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from compress.errors import InputError, ModelError

OLDEST = 7  # before, operands were broadcast by attributes
_QUANTISED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "MatMulNBits", "QGemm", "QAttention")
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
}
_LOW: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}


@dataclass(frozen=True)
class Port:
    """An input of the model: its sizes with the batch first, a name or None where one is free."""

    name: str
    sizes: tuple[int | str | None, ...] | None
    dtype: str

    @property
    def batch(self) -> int | None:
        """The size of the batch where the file fixes it."""
        return self.sizes[0] if self.sizes and isinstance(self.sizes[0], int) else None

    def __str__(self) -> str:
        sizes = "?" if self.sizes is None else "x".join("?" if n is None else str(n) for n in self.sizes)
        return f"{self.name} ({sizes}{'' if self.dtype == 'float32' else ' ' + self.dtype})"


@dataclass(frozen=True)
class OnnxFile:
    """A parsed model.

    Attributes:
        path: Where it lies.
        model: With its weights, functions of its own inlined.
        opset: Version of the ONNX operators.
        producer: What wrote it, "" if it does not say.
        inputs: Those that are no weights.
        outputs: Their names.
        notes: What the checker has against it.
    """

    path: Path
    model: ModelProto
    opset: int
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def open_onnx(path: Path) -> OnnxFile:
    """Parse an ONNX file.

    Raises:
        InputError: It is damaged, no ONNX model, or its external data is missing.
        ModelError: It is quantised, of low precision, too old, or has inputs that cannot be made.
    """
    model = _parsed(path)
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise ModelError(
            f"{path} uses opset {opset}, and the oldest that is read is {OLDEST}",
            "convert it with onnx.version_converter.convert_version(model, 13), or export it again",
        )
    weights = {each.name for each in model.graph.initializer}
    weights |= {each.values.name for each in model.graph.sparse_initializer}
    _refuse_quantised(path, model.graph)
    _refuse_low(path, model.graph)
    inputs = tuple(_port(path, each) for each in model.graph.input if each.name not in weights)
    if not inputs:
        raise ModelError(f"{path} has no inputs", "export the model with an input")
    producer = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    outputs = tuple(each.name for each in model.graph.output)
    return OnnxFile(path, onnx.inliner.inline_local_functions(model), opset, producer, inputs, outputs, _checked(model))


def _parsed(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is truncated or no ONNX model: {_line(error)}", "copy, download or export it again"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{path} is no ONNX model: it holds no graph", "copy, download or export it again")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"{path} keeps its weights in another file, which cannot be read: {_line(error)}",
            "put the files that were exported together into one folder",
        ) from error
    return model


def _checked(model: ModelProto) -> tuple[str, ...]:
    """What is not as the format wants it; ONNX Runtime decides whether it can be run."""
    if model.ByteSize() >= 2**31:  # the checker takes no more in one piece
        return ()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        return (f"the checker of ONNX says: {_line(error)}",)
    return ()


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def _refuse_quantised(path: Path, graph: GraphProto) -> None:
    for node in all_nodes(graph):
        if node.op_type.startswith(_QUANTISED) or node.op_type.endswith("Integer"):
            raise ModelError(
                f"{path} is quantised ({node.op_type} {node.name!r}): its weights are integers, which are not pruned",
                "prune the float32 model, and quantise the smaller one",
            )


def _refuse_low(path: Path, graph: GraphProto) -> None:
    kinds = [(each.name, each.data_type) for each in graph.initializer if len(each.dims)]
    kinds += [(each.name, each.type.tensor_type.elem_type) for each in graph.input]
    constants = [node for node in all_nodes(graph) if node.op_type == "Constant" and node.attribute]
    kinds += [(node.output[0], node.attribute[0].t.data_type) for node in constants if len(node.attribute[0].t.dims)]
    for name, kind in kinds:
        if kind in _LOW:
            raise ModelError(
                f"{path} is in {_LOW[kind]} ({name!r}), and networks are pruned in float32",
                "export it again in float32",
            )


def _port(path: Path, value: ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in _TYPES:
        found = TensorProto.DataType.Name(kind.elem_type).lower() if kind.elem_type else "no tensor"
        raise ModelError(
            f"{path}: its input {value.name!r} is {found}; inputs are {', '.join(_TYPES.values())}",
            "move what reads it out of the model",
        )
    if not kind.HasField("shape"):
        return Port(value.name, None, _TYPES[kind.elem_type])
    return Port(value.name, tuple(_size(dim) for dim in kind.shape.dim), _TYPES[kind.elem_type])


def _size(dim: Any) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
