from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.export import export_onnx, quantize, runtime
from compress.export.runtime import OnnxModule
from compress.export.trim import trim


def constant(name: str, values: Any, dtype: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def small() -> onnx.ModelProto:
    """Two weights with scales of their own, one of which has a zero point; the input has the name of a short name."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], "first"),
        helper.make_node("DequantizeLinear", ["u", "u_scale", "u_zero"], ["other"], "second"),
        helper.make_node("MatMul", ["v0", "weight"], ["a_long_name"], "third"),
        helper.make_node("QuantizeLinear", ["a_long_name", "w_scale", "y_zero"], ["q"], "fourth"),
        helper.make_node("DequantizeLinear", ["q", "u_scale", "y_zero"], ["d"], "fifth"),
        helper.make_node("Add", ["d", "other"], ["output"], "sixth"),
    ]
    constants = [
        constant("w", [[1, 2], [3, 4]], np.int8),
        constant("w_scale", 0.5, np.float32),
        constant("w_zero", 0, np.int8),
        constant("u", [3, 4], np.int8),
        constant("u_scale", 0.5, np.float32),
        constant("u_zero", 1, np.int8),
        constant("y_zero", 0, np.uint8),
        constant("nobody_reads_this", [1, 2, 3], np.float32),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("v0", "output")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it tells of constants that nobody reads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def test_what_goes_and_what_stays() -> None:
    model, x = small(), np.array([[1.0, -2.0]], np.float32)
    before = outputs(model, x)  # 0.5 * (1 - 6, 2 - 8), clipped at 0, and 0.5 * (2, 3) on top
    assert before.tolist() == [[1.0, 1.5]]
    trim(model)
    onnx.checker.check_model(model, full_check=True)
    assert outputs(model, x).tolist() == before.tolist()
    first, second, _, fourth, fifth, last = model.graph.node
    assert len(first.input) == 2 and len(second.input) == 3  # a zero point that is not zero stays
    assert len({first.input[1], second.input[1], fourth.input[1], fifth.input[1]}) == 1  # one scale for all
    assert len(fifth.input) == 3 and fourth.input[2] == fifth.input[2]  # it says that the values are unsigned
    assert {each.name for each in model.graph.initializer} - {"w", "u"} == {
        first.input[1],
        second.input[2],
        fifth.input[2],
    }
    made = [node.output[0] for node in model.graph.node]
    assert "v0" not in made and last.output[0] == "output" and all(len(name) == 2 for name in made[:-1])


def test_inner_graphs_keep_their_names() -> None:
    model = small()
    inner = helper.make_graph(
        [helper.make_node("Identity", ["a_long_name"], ["inside"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1, 2])],
    )
    true = constant("yes", True, np.bool_)
    model.graph.initializer.append(true)
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner))
    trim(model)
    assert "a_long_name" in {name for node in model.graph.node for name in node.output}


def test_a_thin_network_computes_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_alone", lambda file, batch: list(OnnxModule(file)(*batch)))
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
    ).eval()
    samples = torch.randn(40, 1, 8, 8)
    whole = export_onnx(net, (samples[:2],), tmp_path / "model.onnx")
    found = quantize.export_int8(whole.path, samples, tmp_path / "short.onnx", against=net)
    monkeypatch.setattr(quantize, "trim", lambda model: None)
    long = quantize.export_int8(whole.path, samples, tmp_path / "long.onnx", against=net)
    x = torch.randn(5, 1, 8, 8).numpy()
    short, raw = onnx.load(found.path), onnx.load(long.path)
    assert np.array_equal(outputs(short, x), outputs(raw, x))
    assert {"0.weight_quantized", "2.weight_quantized", "5.weight_quantized"} <= {
        t.name for t in short.graph.initializer
    }
    assert found.bytes < 0.6 * long.bytes
