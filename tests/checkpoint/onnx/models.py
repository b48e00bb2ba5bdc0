"""Small ONNX models made by hand, and their run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL}
Shape = Sequence[int | str | None]


def write(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    constants: Mapping[str, Any] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    types: Mapping[str, str] | None = None,
    listed: bool = False,
    inferred: bool = True,
) -> Path:
    """A model of these nodes; sizes of inputs are numbers, names or None, the batch first.

    Args:
        path: Where.
        nodes: Of ``helper.make_node``.
        inputs: Shapes by name.
        constants: Initialisers by name.
        outputs: Names.
        opset: Version of the operators.
        types: Of inputs that are not float32.
        listed: Whether initialisers are inputs as well, as in old files.
        inferred: Whether the shapes of values are noted, which asks for nodes in order.
    """
    arrays = {name: np.asarray(value) for name, value in (constants or {}).items()}
    made = [
        helper.make_tensor_value_info(name, TYPES[(types or {}).get(name, "float32")], list(shape))
        for name, shape in inputs.items()
    ]
    if listed:
        made += [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in arrays.items()
        ]
    graph = helper.make_graph(
        list(nodes), "network", made, [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    domains = {node.domain for node in nodes if node.domain}
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
    model = helper.make_model(graph, opset_imports=versions, producer_name="by hand")
    model.ir_version = 8 if opset < 21 else 10
    onnx.save(onnx.shape_inference.infer_shapes(model) if inferred else model, path)
    return path


def run(path: Path, *inputs: Tensor) -> list[Tensor]:
    """What ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return [torch.as_tensor(x) for x in session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})]


def values(*shape: int, seed: int = 0) -> Any:
    """Random numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
