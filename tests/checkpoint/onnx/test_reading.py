"""What files say of their inputs, what is refused and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.checkpoint.onnx import registry
from compress.checkpoint.onnx.reading import read_onnx
from compress.checkpoint.read import load_model
from compress.errors import InputError, ModelError
from tests.checkpoint.onnx.models import run, values, write

# Two runtimes add up float32 in different orders, on every processor in another
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)

CONV = helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c"], "conv1", pads=[1, 1, 1, 1])
WEIGHTS = {"conv1.weight": values(4, 3, 3, 3), "conv1.bias": values(4)}


def network(path: Path, batch: Any = "n", size: Any = 6, opset: int = 17, **more: Any) -> Path:
    """Convolution, ReLU, mean, linear layer; flattened by a shape that is computed."""
    nodes = [
        CONV,
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["p", "target"], ["f"]),
        helper.make_node("Gemm", ["f", "fc/w:0", "fc.bias"], ["y"], "fc"),
    ]
    constants = {**WEIGHTS, "fc/w:0": values(4, 2), "fc.bias": values(2)}
    shapes = {"first": np.array([0]), "rest": np.array([-1])}
    return write(path, nodes, {"x": (batch, 3, size, size)}, {**constants, **shapes}, opset=opset, **more)


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 17, 21])
def test_a_network_of_any_opset(tmp_path: Path, opset: int) -> None:
    path = network(tmp_path / "m.onnx", opset=opset, listed=opset < 9)
    before = path.read_bytes()
    loaded = load_model(path)
    assert (loaded.form, loaded.architecture, loaded.input_shapes) == ("onnx", "graph", ((3, 6, 6),))
    assert loaded.onnx is not None
    assert (loaded.onnx.opset, loaded.onnx.producer) == (opset, "by hand")
    assert (loaded.onnx.inputs, loaded.onnx.outputs, loaded.onnx.initialisers) == (("x",), ("y",), 6)
    assert loaded.onnx.names == {"fc.w_0": "fc/w:0"}
    assert [name for name, _ in loaded.module.named_parameters()] == ["conv1.weight", "conv1.bias", "fc.w_0", "fc.bias"]
    x = torch.randn(5, 3, 6, 6)
    close(loaded.module(x), run(path, x)[0])
    assert path.read_bytes() == before


def test_shapes_that_are_computed_are_numbers(tmp_path: Path) -> None:
    found = read_onnx(network(tmp_path / "m.onnx"))
    names = [str(n.target) for n in found.module.graph.nodes if n.op == "call_function"]
    assert names == [
        "aten.sym_size.int",
        "aten.conv2d.default",
        "aten.relu.default",
        "aten.adaptive_avg_pool2d.default",
        "aten.reshape.default",
        "aten.linear.default",
    ]


def test_positions_of_words(tmp_path: Path) -> None:
    """As transformers have them: a range as long as the input is looked up in a table."""
    nodes = [
        helper.make_node("Gather", ["words", "x"], ["w"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["range"]),
        helper.make_node("Gather", ["positions", "range"], ["p"]),
        helper.make_node("Add", ["w", "p"], ["y"]),
    ]
    constants = {"words": values(11, 4), "positions": values(8, 4), "one": np.array(1), "zero": np.array(0)}
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", "length")}, constants, types={"x": "int64"})
    found = read_onnx(path, ((5,),))
    assert [str(kind) for kind in found.types] == ["int64<11"]
    x = torch.randint(11, (3, 5))
    close(found.module(x), run(path, x)[0])


def test_a_view_that_is_written_as_a_look_up(tmp_path: Path) -> None:
    """``as_strided`` becomes positions in a flat tensor, as many as the batch asks for."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["rows"]),
        helper.make_node("Mul", ["rows", "six"], ["starts"]),
        helper.make_node("Unsqueeze", ["starts", "last"], ["column"]),
        helper.make_node("Add", ["column", "within"], ["positions"]),
        helper.make_node("Gather", ["f", "positions"], ["y"]),
    ]
    constants = {"flat": np.array([-1]), "zero": np.array(0), "one": np.array(1), "six": np.array(6)}
    constants |= {"last": np.array([1]), "within": np.arange(6)}
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", 2, 3)}, constants)
    found = read_onnx(path)
    x = torch.randn(4, 2, 3)
    assert torch.equal(found.module(x), x.flatten(1))


def test_a_batch_that_the_file_fixes_is_freed(tmp_path: Path) -> None:
    nodes = [CONV, helper.make_node("Reshape", ["c", "shape"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    constants = {**WEIGHTS, "shape": np.array([1, 64]), "w": values(64, 3)}
    path = write(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)}, constants)
    found = read_onnx(path)
    assert "the file fixes the batch at 1, and the network takes any" in found.notes
    x = torch.randn(3, 3, 4, 4)
    close(found.module(x), torch.cat([run(path, row[None])[0] for row in x]))


def test_a_batch_that_cannot_be_freed(tmp_path: Path) -> None:
    """The rows of a batch meet, so that a larger one is another network."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("ReduceMean", ["z"], ["y"], axes=[0])]
    one = read_onnx(write(tmp_path / "one.onnx", nodes, {"x": (1, 3)}, {"w": values(3, 2)}))
    assert "batches of 1 alone" in one.notes[-1]
    with pytest.raises(RuntimeError):
        one.module(torch.randn(2, 3))
    four = write(tmp_path / "four.onnx", nodes, {"x": (4, 3)}, {"w": values(3, 2)})
    with pytest.raises(ModelError, match="takes batches of 4 alone"):
        read_onnx(four)


def test_sizes_that_are_open(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", size="side")
    with pytest.raises(InputError, match=r"leaves sizes of its input x \(nx3xsidexside\) open") as caught:
        read_onnx(path)
    assert caught.value.hint.endswith("such as --input-shape 3,224,224")
    assert read_onnx(path, ((3, 8, 8),)).shapes == ((3, 8, 8),)
    with pytest.raises(InputError, match="--input-shape says 4x8x8"):
        read_onnx(path, ((4, 8, 8),))
    with pytest.raises(InputError, match="has 1 input and 2 shapes"):
        read_onnx(path, ((3, 8, 8), (3,)))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Mul", ["a", "s"], ["p"])]
    path = write(tmp_path / "m.onnx", nodes, {"a": (None, 4), "b": (None, 4)}, outputs=("p", "s"))
    found = read_onnx(path)
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    for made, expected in zip(found.module(a, b), run(path, a, b), strict=True):
        close(made, expected)


def test_what_is_open_of_several_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["w", "ids"], ["e"]), helper.make_node("Mul", ["e", "mask"], ["y"])]
    inputs = {"ids": ("n", "length"), "mask": ("n", "length", 1)}
    path = write(tmp_path / "m.onnx", nodes, inputs, {"w": values(5, 4)}, types={"ids": "int64"})
    with pytest.raises(InputError, match="open") as caught:
        read_onnx(path)
    assert caught.value.hint.endswith("such as --input-shape 16 --input-shape 16,1")
    assert read_onnx(path, ((16,), (16, 1))).shapes == ((16,), (16, 1))


def test_what_cannot_be_read_is_named_before_the_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"], "where")], {"x": (8, 3)})
    with pytest.raises(ModelError, match="NonZero 'where'"):
        read_onnx(path)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole = network(tmp_path / "m.onnx").read_bytes()
    for name, content, message in (
        ("cut.onnx", whole[: len(whole) // 2], "truncated or no ONNX model"),
        ("text.onnx", b"this is a text", "no ONNX model"),
        ("empty.onnx", b"", "is empty"),
        ("page.onnx", b"<html></html>", "a web page"),
        ("image.onnx", b"\x89PNG\r\n\x1a\n", "a PNG image"),
        ("nothing.onnx", onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            load_model(tmp_path / name)
        assert caught.value.hint


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx").rename(tmp_path / "model.bin")
    assert load_model(path).form == "onnx"


def test_weights_in_another_file(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx")
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=16)
    x = torch.randn(2, 3, 6, 6)
    close(load_model(path).module(x), run(path, x)[0])
    (tmp_path / "m.data").unlink()
    with pytest.raises(InputError, match="keeps its weights in another file") as caught:
        load_model(path)
    assert "one folder" in caught.value.hint


def test_opsets_that_are_too_old(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="uses opset 6, and the oldest that is read is 7"):
        read_onnx(network(tmp_path / "m.onnx", opset=6))


def test_quantised_models(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.uint8)}
    with pytest.raises(ModelError, match=r"quantised \(QuantizeLinear 'quantise'\)") as caught:
        read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, constants))
    assert "float32 model" in caught.value.hint


def test_low_precision(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["w"], ["v"], to=1), helper.make_node("Mul", ["x", "v"], ["y"])]
    with pytest.raises(ModelError, match="float16"):
        read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, {"w": values(3).astype(np.float16)}))


def test_inputs_that_cannot_be_made(tmp_path: Path) -> None:
    made = helper.make_tensor_value_info("x", TensorProto.STRING, ["n", 3])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [made], [helper.make_empty_tensor_value_info("y")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="its input 'x' is string"):
        read_onnx(tmp_path / "m.onnx")


def test_an_operator_without_a_translation_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"], "where are they")]
    with pytest.raises(ModelError, match=r"NonZero 'where are they' \(opset 13\).*no translation") as caught:
        read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, opset=13))
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_shape_that_depends_on_data(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["s"], to=7), helper.make_node("Expand", ["w", "s"], ["y"], "grown")]
    path = write(tmp_path / "m.onnx", nodes, {"x": (2,)}, {"w": values(1, 1)})
    with pytest.raises(ModelError, match="depends on the numbers of the input"):
        read_onnx(path)


def test_a_translation_that_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = registry.Operator(lambda node, operands: torch.tanh(operands[0]), frozenset(), False)
    monkeypatch.setitem(registry.OPERATORS, ("", "Relu"), wrong)
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", 3)})
    with pytest.raises(ModelError, match="computes something else as a graph than in ONNX Runtime"):
        read_onnx(path)


def branched(condition: list[Any], constants: dict[str, Any], path: Path) -> Path:
    """A layer behind an If whose branches use the same names."""
    squeezed = helper.make_graph(
        [
            helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array([2, 3]))),
            helper.make_node("Squeeze", ["p", "axis"], ["out"]),
        ],
        "squeezed",
        [],
        [helper.make_empty_tensor_value_info("out")],
    )
    plain = helper.make_graph(
        [helper.make_node("Mul", ["p", "two"], ["out"])],
        "plain",
        [],
        [helper.make_empty_tensor_value_info("out")],
        [numpy_helper.from_array(np.full((1, 1), 2, np.float32), "two")],
    )
    nodes = [
        CONV,
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        *condition,
        helper.make_node("If", ["condition"], ["branch"], "if", then_branch=squeezed, else_branch=plain),
        helper.make_node("MatMul", ["branch", "w"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "branched",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in {**WEIGHTS, "w": values(4, 2), **constants}.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_a_branch_that_shapes_choose(tmp_path: Path) -> None:
    """As ``torch.onnx`` writes a squeeze of a size that it does not know."""
    condition = [
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Gather", ["s", "three"], ["side"]),
        helper.make_node("Equal", ["side", "one"], ["same"]),
        helper.make_node("Identity", ["same"], ["condition"]),
    ]
    path = branched(condition, {"three": np.array(3), "one": np.array(1)}, tmp_path / "m.onnx")
    found = read_onnx(path)
    assert [str(n.target) for n in found.module.graph.nodes if "squeeze" in str(n.target)]
    x = torch.randn(5, 3, 6, 6)
    torch.testing.assert_close(found.module(x), run(path, x)[0])


def test_a_branch_that_data_choose(tmp_path: Path) -> None:
    condition = [
        helper.make_node("ReduceSum", ["p"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["condition"]),
    ]
    path = branched(condition, {"limit": np.array(0, np.float32)}, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"If 'if' \(opset 17\).*which branch it takes depends on the numbers"):
        read_onnx(path)


def test_nodes_in_any_order(tmp_path: Path) -> None:
    """As converters to float16 leave them, which put casts at the end."""
    nodes = [helper.make_node("MatMul", ["a", "w"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}, {"w": values(3, 2)}, inferred=False)
    found = read_onnx(path)
    x = torch.randn(4, 3)
    torch.testing.assert_close(found.module(x), run(path, x)[0])


def test_weights_of_low_precision_in_nodes(tmp_path: Path) -> None:
    low = numpy_helper.from_array(values(3).astype(np.float16))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=low),
        helper.make_node("Cast", ["w"], ["v"], to=1),
        helper.make_node("Mul", ["x", "v"], ["y"]),
    ]
    with pytest.raises(ModelError, match=r"is in float16 \('w'\)"):
        read_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("n", 3)}))
