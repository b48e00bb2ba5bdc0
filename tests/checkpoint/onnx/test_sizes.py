"""Sizes that a file leaves open: found where the network takes them, kept where it is exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from compress.checkpoint.onnx.reading import read_onnx
from compress.checkpoint.onnx.sizes import with_other_sizes
from compress.export.onnx import Ports, export_onnx
from compress.export.sizes import samples_of_other_sizes
from tests.checkpoint.onnx.models import run, values, write


def network(path: Path, flat: int, sizes: tuple[Any, Any] = ("height", None)) -> Path:
    """A convolution, and its output as (N, flat, -1): with 4 channels of 4 x 4 the same for 4 and -1, and for 16."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "shape"], ["f"]),
        helper.make_node("ReduceMean", ["f"], ["y"], axes=[2], keepdims=0),
    ]
    constants = {"w": values(4, 3, 3, 3), "shape": np.array([0, flat, 64 // flat if flat == 16 else -1])}
    return write(path, nodes, {"x": ("n", 3, *sizes)}, constants)


def test_half_and_twice_of_every_open_size() -> None:
    inputs = (torch.randn(2, 3, 4, 6), torch.tensor([[5, 7], [9, 11]]))
    smaller, larger = with_other_sizes(inputs, (("", "h", ""), ("words",)))
    assert [tuple(each.shape) for each in (*smaller, *larger)] == [(2, 3, 2, 6), (2, 1), (2, 3, 8, 6), (2, 4)]
    assert larger[1].tolist() == [[5, 7, 5, 7], [9, 11, 9, 11]]
    assert [tuple(each[0].shape) for each in with_other_sizes(inputs[:1], (("", "", ""),))] == [(2, 3, 4, 6)] * 2
    assert len(list(with_other_sizes((torch.randn(2, 3),), (("odd",),)))) == 1


@pytest.mark.parametrize(("flat", "free"), [(4, True), (16, False)])
def test_whether_the_network_takes_others(tmp_path: Path, flat: int, free: bool) -> None:
    path = network(tmp_path / "m.onnx", flat)
    found = read_onnx(path, ((3, 4, 4),))
    assert (found.facts.sizes, found.facts.free) == ((("", "height", "x_3"),), free)
    given = read_onnx(network(tmp_path / "given.onnx", 4, (4, 4))).facts
    assert (given.sizes, given.free) == ((("", "", ""),), False)


@pytest.mark.parametrize(("flat", "free"), [(4, True), (16, False)])
def test_open_sizes_are_exported(tmp_path: Path, flat: int, free: bool) -> None:
    module = read_onnx(network(tmp_path / "m.onnx", flat), ((3, 4, 4),)).module
    ports = Ports(("x",), ("y",), sizes=(("", "h", "w"),))
    done = export_onnx(module, (torch.randn(2, 3, 4, 4),), tmp_path / "again.onnx", ports=ports, opset=17)
    assert done.open_sizes is free and done.opset == 17 and done.max_error <= 1e-5
    if free:
        x = torch.randn(3, 3, 5, 7)
        torch.testing.assert_close(run(done.path, x)[0], module(x), rtol=1e-4, atol=1e-5)


def test_sizes_that_the_network_does_not_take(tmp_path: Path) -> None:
    """Half of 4 is too small for a kernel of 3 without padding behind another one."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 2)).eval()
    names = (("", "h", "w"),)
    assert [tuple(x.shape) for (x,) in samples_of_other_sizes(module, (torch.randn(2, 3, 4, 4),), names)] == [
        (1, 3, 8, 8)
    ]
