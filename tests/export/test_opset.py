"""Older versions of the operators: what was an attribute is one again, and what cannot be is not tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from compress.export.names import apart
from compress.export.onnx import Ports, export_onnx
from compress.export.opset import declared, older, version_of
from compress.graph import trace
from tests.checkpoint.onnx.models import run, values, write


def test_inputs_are_attributes_again(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["u"]),
        helper.make_node("Clip", ["u", "low", ""], ["c"]),
        helper.make_node("ReduceMean", ["c", "axis"], ["m"], keepdims=0),
        helper.make_node("Reshape", ["m", "shape"], ["y"], allowzero=1),
    ]
    constants = {"axis": np.array([1]), "low": np.array(0.1, np.float32), "shape": np.array([-1, 3])}
    path = write(tmp_path / "new.onnx", nodes, {"x": ("n", 3)}, constants, opset=18)
    found = list(older(onnx.load(path), 8))
    assert version_of(found[0]) == 8
    assert [each.name for each in found[0].graph.node[0].attribute] == ["axes"]
    assert [each.name for each in found[0].graph.initializer] == ["shape"]
    onnx.save(found[0], tmp_path / "old.onnx")
    x = torch.randn(4, 3)
    torch.testing.assert_close(run(tmp_path / "old.onnx", x)[0], run(path, x)[0], rtol=1e-4, atol=1e-4)


def test_an_operator_that_did_not_exist(tmp_path: Path) -> None:
    nodes = [helper.make_node("HardSwish", ["x"], ["y"])]
    model = onnx.load(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, opset=18))
    assert min(version_of(each) for each in older(model, 8)) == 14


def test_axes_that_are_computed_stay_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["axis"], ["a"]), helper.make_node("Unsqueeze", ["x", "a"], ["y"])]
    model = onnx.load(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, {"axis": np.array([1])}, opset=18))
    assert declared(model, 12) is None
    kept = declared(model, 13)
    assert kept is not None and list(kept.graph.node[1].input) == ["x", "a"]


@pytest.mark.parametrize("wanted", [9, 14])
def test_a_part_of_a_shape_is_a_slice_of_the_whole(tmp_path: Path, wanted: int) -> None:
    """Where a batch is free, nearly every network holds one."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], end=1),
        helper.make_node("Shape", ["x"], ["last"], start=-1),
        helper.make_node("Concat", ["rows", "last", "one"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    path = write(tmp_path / "new.onnx", nodes, {"x": ("n", 1, 3)}, {"one": np.array([1])}, opset=18)
    found = declared(onnx.load(path), wanted)
    assert found is not None and version_of(found) == wanted
    onnx.checker.check_model(found)
    onnx.save(found, tmp_path / "old.onnx")
    x = torch.randn(4, 1, 3)
    assert torch.equal(run(tmp_path / "old.onnx", x)[0], x.reshape(4, 3, 1))


def test_a_resize_is_told_that_there_are_no_scales(tmp_path: Path) -> None:
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")]
    path = write(tmp_path / "new.onnx", nodes, {"x": (2, 3, 4, 4)}, {"sizes": np.array([2, 3, 8, 6])}, opset=18)
    found = declared(onnx.load(path), 11)
    assert found is not None
    onnx.save(found, tmp_path / "old.onnx")
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(run(tmp_path / "old.onnx", x)[0], run(path, x)[0])


class Scaled(nn.Module):
    """A weight whose name is one that the exporter gives to its own values."""

    def __init__(self) -> None:
        super().__init__()
        self.val_3 = nn.Parameter(torch.from_numpy(values(6, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.val_3).relu()


@pytest.mark.parametrize(("wanted", "ir"), [(8, 4), (18, 8)])
def test_what_a_file_has_in_common_with_its_original(tmp_path: Path, wanted: int, ir: int) -> None:
    module = trace(Scaled(), (torch.randn(2, 6),)).module
    ports = Ports(("in:0",), ("out/y",), {"val_3": "dense/W:0"}, "unk__1", 3, {"stride": "32"})
    done = export_onnx(module, (torch.randn(2, 6),), tmp_path / "m.onnx", opset=wanted, ports=ports)
    assert done.opset == wanted and done.max_error <= 1e-6 and done.dynamic_batch
    model = onnx.load(done.path)
    assert (model.ir_version, [(each.key, each.value) for each in model.metadata_props]) == (ir, [("stride", "32")])
    graph = model.graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "unk__1"
    assert [each.name for each in graph.initializer] == ["dense/W:0"]
    assert (graph.input[0].name, graph.output[0].name) == ("in:0", "out/y")
    assert list(module.state_dict()) == ["val_3"]


def test_a_port_that_is_called_as_the_exporter_calls_a_value(tmp_path: Path) -> None:
    module = trace(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU()), (torch.randn(2, 6),)).module
    ports = Ports(("relu",), ("linear",))
    done = export_onnx(module, (torch.randn(2, 6),), tmp_path / "m.onnx", ports=ports)
    graph = onnx.load(done.path).graph
    assert ([p.name for p in graph.input], [p.name for p in graph.output]) == (["relu"], ["linear"])
    assert done.max_error <= 1e-6


def test_no_version_asked_for_is_the_exporters_own(tmp_path: Path) -> None:
    done = export_onnx(Scaled(), (torch.randn(2, 6),), tmp_path / "m.onnx", exact=True)
    assert done.opset == version_of(onnx.load(done.path)) and done.max_error <= 1e-6


def test_a_graph_apart_computes_the_same() -> None:
    module = trace(Scaled(), (torch.randn(2, 6),)).module
    x = torch.randn(3, 6)
    assert torch.equal(apart(module)(x), module(x))
    assert [name for name, _ in apart(module).named_parameters()] == ["network.val_3"]
    plain = Scaled()
    assert apart(plain) is plain
