"""Layers that exporters write in several operations come in as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import fx

from compress.checkpoint.onnx.reading import read_onnx
from tests.checkpoint.onnx.models import values, write


def operations(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("order", [("z", "bias"), ("bias", "z")])
def test_a_product_and_its_bias_are_linear(tmp_path: Path, order: tuple[str, str]) -> None:
    weight, bias = values(6, 5), values(5, seed=1)
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["z"]), helper.make_node("Add", order, ["y"])]
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", 6)}, {"weight": weight, "bias": bias})
    found = read_onnx(path)
    assert operations(found.module) == ["aten.linear.default"]
    parameters = dict(found.module.named_parameters())
    assert torch.equal(parameters["weight"], torch.from_numpy(weight.T))
    assert torch.equal(parameters["bias"], torch.from_numpy(bias))
    assert found.facts.transposed == ("weight",)


def test_a_gemm_keeps_its_factors(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=2.0, beta=3.0, transB=1)]
    found = read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 6)}, {"w": values(5, 6), "b": values(1, 5)}))
    assert operations(found.module) == ["aten.linear.default"]
    parameters = dict(found.module.named_parameters())
    assert torch.equal(parameters["w"], torch.from_numpy(2 * values(5, 6)))
    assert torch.equal(parameters["b"], torch.from_numpy(3 * values(5)))


def test_a_bias_behind_a_convolution_is_its_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    found = read_onnx(
        write(tmp_path / "m.onnx", nodes, {"x": ("n", 3, 5, 5)}, {"w": values(4, 3, 3, 3), "b": values(4, 1, 1)})
    )
    assert operations(found.module) == ["aten.conv2d.default"]
    assert dict(found.module.named_parameters())["b"].shape == (4,)


def test_what_only_looks_like_a_bias_is_added(tmp_path: Path) -> None:
    """Along the last dim of an image, or on a product that something else reads as well."""
    image = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    found = read_onnx(
        write(tmp_path / "a.onnx", image, {"x": ("n", 3, 4, 4)}, {"w": values(4, 3, 1, 1), "b": values(4)})
    )
    assert operations(found.module) == ["aten.conv2d.default", "aten.add.Tensor"]
    both = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["a"]),
        helper.make_node("Mul", ["z", "a"], ["y"]),
    ]
    found = read_onnx(write(tmp_path / "b.onnx", both, {"x": ("n", 3)}, {"w": values(3, 4), "b": values(4)}))
    assert operations(found.module) == ["aten.linear.default", "aten.add.Tensor", "aten.mul.Tensor"]


def test_vectors_that_happen_to_be_equal_are_parted_and_matrices_stay_tied(tmp_path: Path) -> None:
    zero, tied = np.zeros(4, np.float32), values(4, 4)
    nodes = [
        helper.make_node("Identity", ["zero"], ["again"]),
        helper.make_node("Gemm", ["x", "tied", "zero"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "tied", "again"], ["y"], transB=1),
    ]
    found = read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 4)}, {"zero": zero, "tied": tied}))
    assert {name: tuple(p.shape) for name, p in found.module.named_parameters()} == {
        "tied": (4, 4),
        "zero": (4,),
        "zero_2": (4,),
    }


def test_an_embedding_that_is_the_output_layer_as_well(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", 5)}, {"table": values(9, 4)}, types={"x": "int64"})
    found = read_onnx(path)
    assert operations(found.module) == ["aten.embedding.default", "aten.linear.default"]
    assert [(name, tuple(p.shape)) for name, p in found.module.named_parameters()] == [("table", (9, 4))]
    assert [str(kind) for kind in found.types] == ["int64<9"]


def test_constants_are_reshaped_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["m"]),
        helper.make_node("MatMul", ["x", "m"], ["y"]),
    ]
    constants = {"w": values(2, 3, 5), "shape": np.array([6, 5])}
    found = read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 6)}, constants, opset=8, listed=True))
    assert operations(found.module) == ["aten.linear.default"]
    assert [(name, tuple(p.shape)) for name, p in found.module.named_parameters()] == [("w", (5, 6))]
