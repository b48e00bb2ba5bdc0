"""Every operator against ONNX Runtime, in the versions in which it is written differently."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from compress.checkpoint.onnx.reading import read_onnx
from compress.errors import ModelError
from tests.checkpoint.onnx.models import run, values, write


@dataclass(frozen=True)
class Case:
    """One node on an input ``x``: its other inputs are constants, None for one that is left out."""

    kind: str
    shape: tuple[int, ...]  # of x, without the batch
    others: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1

    def __str__(self) -> str:
        told = "-".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, np.ndarray))
        return f"{self.kind}-{self.opset}-{told}"


def case(kind: str, shape: tuple[int, ...], *others: Any, opset: int = 17, outputs: int = 1, **attributes: Any) -> Case:
    return Case(kind, shape, others, attributes, opset, outputs)


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def scalar(number: float) -> Any:
    return np.array(number, np.float32)


CONVOLUTIONS = [
    case("Conv", (4, 9, 8), values(6, 4, 3, 3), values(6), opset=8, pads=[1, 1, 1, 1]),
    case("Conv", (4, 9, 8), values(6, 2, 3, 3), group=2, strides=[2, 1], dilations=[1, 2]),
    case("Conv", (4, 9, 8), values(6, 4, 3, 2), pads=[0, 1, 2, 0], strides=[2, 2]),
    *(case("Conv", (4, 9, 8), values(6, 4, 4, 3), values(6), auto_pad=m, strides=[2, 2], opset=7)
      for m in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    case("Conv", (4, 9), values(6, 4, 3), pads=[2, 0]),
    case("Conv", (2, 5, 4, 4), values(3, 2, 2, 3, 3), pads=[0, 1, 1, 1, 1, 1]),
    case("ConvTranspose", (4, 5, 6), values(4, 3, 3, 3), values(6), group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("ConvTranspose", (4, 5, 6), values(4, 3, 3, 3), strides=[2, 3], output_padding=[1, 2]),
    case("ConvTranspose", (4, 5, 6), values(4, 3, 3, 3), strides=[2, 2], pads=[0, 1, 1, 0]),
    case("ConvTranspose", (4, 5, 6), values(4, 3, 3, 3), strides=[2, 2], output_shape=[10, 12]),
    *(case("ConvTranspose", (4, 5, 6), values(4, 3, 3, 3), strides=[2, 2], auto_pad=m)
      for m in ("SAME_UPPER", "SAME_LOWER")),
    case("ConvTranspose", (4, 7), values(4, 3, 3), strides=[2], dilations=[2]),
]  # fmt: skip

POOLINGS = [
    case("MaxPool", (3, 9, 8), kernel_shape=[3, 2], strides=[2, 2], opset=8),
    case("MaxPool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    case("MaxPool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", (3, 9, 8), kernel_shape=[2, 2], dilations=[2, 2], opset=12),
    case("MaxPool", (3, 9), kernel_shape=[3]),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 2], strides=[2, 2], opset=7),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", (3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=19),
    case("GlobalAveragePool", (3, 5, 4)),
    case("GlobalAveragePool", (3, 5, 4, 3)),
    case("GlobalMaxPool", (3, 5, 4)),
]

NORMS = [
    case("BatchNormalization", (4, 5, 5), values(4), values(4), values(4), values(4) ** 2, opset=8),
    case("BatchNormalization", (4,), values(4), values(4), values(4), values(4) ** 2, epsilon=0.1),
    case("InstanceNormalization", (4, 5, 5), values(4), values(4)),
    case("LayerNormalization", (4, 6), values(6), values(6), epsilon=1e-3),
    case("LayerNormalization", (4, 6), values(4, 6), axis=-2),
    case("LayerNormalization", (4, 6), values(6), values(6), axis=1),
    case("GroupNormalization", (6, 4, 4), values(3), values(3), num_groups=3, opset=18),
    case("GroupNormalization", (6, 4, 4), values(6), values(6), num_groups=3, opset=21),
    case("LRN", (7, 4, 4), size=5, alpha=0.3, beta=0.6, bias=1.5),
    case("LRN", (7, 4, 4), size=3),
    case("LpNormalization", (7, 4), axis=1, p=2),
    case("LpNormalization", (7, 4), axis=-1, p=1),
]

UNARY = [
    *(case(kind, (4, 6)) for kind in (
        "Abs", "Neg", "Exp", "Floor", "Ceil", "Round", "Sign", "Erf", "Sin", "Cos", "Tanh", "Sigmoid", "Relu",
        "Softplus", "Softsign", "LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish", "ThresholdedRelu",
        "Identity", "Reciprocal", "Sinh", "Cosh", "Atan", "Asinh",
    )),
    case("LeakyRelu", (4, 6), alpha=0.3),
    case("Elu", (4, 6), alpha=0.7),
    case("Selu", (4, 6), alpha=1.5, gamma=1.2),
    case("HardSigmoid", (4, 6), alpha=1 / 6),
    case("HardSigmoid", (4, 6), alpha=0.3, beta=0.4),
    case("Mish", (4, 6), opset=18),
    case("Gelu", (4, 6), opset=20),
    case("Gelu", (4, 6), opset=20, approximate="tanh"),
    case("PRelu", (4, 6, 6), values(4, 1, 1)),
    case("PRelu", (4, 6), values(6)),
    case("PRelu", (4, 6), values(1)),
    case("Dropout", (4, 6), opset=10),
    case("Dropout", (4, 6), scalar(0.3), opset=13),
    case("Cast", (4, 6), to=7),
    case("Clip", (4, 6), min=-0.5, max=0.4, opset=8),
    case("Clip", (4, 6), min=0.0, max=6.0, opset=8),
    case("Clip", (4, 6), scalar(-0.5), scalar(0.4), opset=13),
    case("Clip", (4, 6), None, scalar(0.4), opset=13),
    *(case("Softmax", (4, 6, 5), opset=n, axis=a) for n, a in ((11, 1), (11, 2), (11, 3), (13, 1), (13, -1))),
    case("Softmax", (4, 6), opset=11),
    case("LogSoftmax", (4, 6), opset=13),
    case("Hardmax", (4, 6), opset=13),
]  # fmt: skip

BINARY = [
    *(case(kind, (4, 6), values(6), opset=n) for kind in ("Add", "Sub", "Mul", "Div") for n in (7, 14)),
    case("Add", (4, 6, 6), values(4, 1, 1)),
    case("Div", (4, 6), scalar(3)),
    case("Pow", (4, 6), scalar(2)),
    case("Pow", (4, 6), scalar(3), opset=8),
    case("Mod", (4, 6), scalar(0.7), fmod=1),
    case("Max", (4, 6), values(6), scalar(0.1)),
    case("Min", (4, 6), scalar(0.1), opset=8),
    case("Sum", (4, 6), values(6), values(4, 6)),
    case("Mean", (4, 6), values(6), values(4, 6)),
    case("Greater", (4, 6), scalar(0)),
    case("Less", (4, 6), values(6), opset=9),
    case("GreaterOrEqual", (4, 6), scalar(0)),
    case("Equal", (4, 6), scalar(0)),
    case("Gemm", (6,), values(6, 5), values(5), opset=8),
    case("Gemm", (6,), values(5, 6), values(1, 5), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", (6,), values(5, 6), scalar(2), transB=1),
    case("Gemm", (6,), values(6, 5)),
    case("MatMul", (3, 6), values(6, 5)),
    case("MatMul", (3, 4, 6), values(3, 6, 5)),
    case("Einsum", (3, 6), values(6, 5), equation="bij, jk -> bik"),
]

SHAPES = [
    case("Reshape", (4, 6), ints(0, -1), opset=8),
    case("Reshape", (4, 6), ints(-1, 6)),
    case("Flatten", (4, 6)),
    case("Flatten", (4, 6), axis=2),
    case("Transpose", (4, 6), perm=[0, 2, 1]),
    case("Transpose", (4, 6)),
    case("Squeeze", (1, 6), opset=11, axes=[1]),
    case("Squeeze", (1, 6), ints(1), opset=13),
    case("Unsqueeze", (4, 6), opset=11, axes=[1, 3]),
    case("Unsqueeze", (4, 6), ints(-1), opset=13),
    case("Expand", (1, 6), ints(1, 3, 6)),
    case("Tile", (2, 6), ints(1, 2, 3)),
    case("Concat", (4, 6), values(1, 4, 6)[:0], axis=0),
    case("Split", (4, 6), outputs=2, axis=1, opset=11),
    case("Split", (4, 6), outputs=3, axis=2, split=[1, 2, 3], opset=11),
    case("Split", (4, 6), ints(1, 3), outputs=2, axis=1, opset=13),
    case("Split", (5, 6), outputs=2, axis=1, num_outputs=2, opset=18),
    case("Slice", (4, 6), axes=[1, 2], starts=[1, -4], ends=[3, 100], opset=9),
    case("Slice", (4, 6), ints(1, 0), ints(2**31, -1), ints(1, 2), ints(2, 3)),
    case("Slice", (4, 6), ints(-1), ints(-(2**40)), ints(2), ints(-1)),
    case("Slice", (4, 6), ints(4), ints(0), ints(2), ints(-2)),
    case("Gather", (4, 6), np.array(1), axis=1),
    case("Gather", (4, 6), ints(2, 0, -1), axis=2),
    case("Gather", (4, 6), np.array([[0, 1], [-1, 2]]), axis=1),
    case("GatherND", (4, 6), np.array([[0, 1], [1, -1]])),
    case("ScatterND", (4, 6), np.array([[0, 1], [1, -1]]), values(2, 6)),
    case("ScatterND", (4, 6), np.array([[0, 1], [0, 1]]), values(2, 6), reduction="add"),
    case("ScatterElements", (4, 6), np.array([[[0, -1]], [[2, 3]]]), values(2, 1, 2), axis=2),
    case("ScatterElements", (4, 6), np.array([[[1, 1]], [[2, 3]]]), values(2, 1, 2), axis=1, reduction="add"),
    case("Pad", (4, 6), pads=[0, 1, 0, 0, 0, 2], value=0.5, opset=10),
    case("Pad", (4, 6), ints(0, 0, 1, 0, -1, 2), scalar(0.5), opset=11),
    case("Pad", (4, 6), ints(0, 0, 1, 0, 0, 2), mode="reflect"),
    case("Pad", (4, 6), ints(0, 0, 1, 0, 0, 2), mode="edge"),
    case("Pad", (4, 6), ints(1, 2), None, ints(-1), opset=18),
    case("DepthToSpace", (8, 3, 2), blocksize=2),
    case("DepthToSpace", (8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", (2, 4, 6), blocksize=2),
    case("Trilu", (4, 4)),
    case("Trilu", (4, 4), np.array(1), upper=0),
    case("CumSum", (4, 6), np.array(1), exclusive=1, reverse=1),
]

REDUCTIONS = [
    *(case(kind, (4, 6), opset=11, axes=[1], keepdims=0) for kind in (
        "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd",
        "ReduceLogSumExp",
    )),
    case("ReduceMean", (4, 6), opset=13, axes=[1, -1]),
    case("ReduceMean", (4, 6), ints(2), opset=18),
    case("ReduceSum", (4, 6), ints(1), opset=13),
    case("ReduceSum", (4, 6), noop_with_empty_axes=1, opset=13),
    case("ArgMax", (4, 6), axis=1),
    case("ArgMin", (4, 6), axis=-1, keepdims=0),
    case("ArgMax", (4, 6), axis=1, select_last_index=1),
    case("TopK", (4, 6), ints(2), outputs=2),
]  # fmt: skip

RESIZED = [
    case("Upsample", (3, 4, 5), opset=7, scales=[1.0, 1.0, 2.0, 3.0]),
    case("Upsample", (3, 4, 5), np.array([1, 1, 2, 2], np.float32), opset=9, mode="linear"),
    case("Resize", (3, 4, 5), np.array([1, 1, 2, 2], np.float32), opset=10),
    *(
        case("Resize", (3, 4, 5), None, np.array([1, 1, *s], np.float32), mode=m, coordinate_transformation_mode=c)
        for m in ("nearest", "linear", "cubic")
        for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for s in ((2.0, 2.0), (0.6, 1.7))
    ),
    case("Resize", (3, 4, 5), None, None, ints(1, 3, 7, 3), mode="linear"),
    case("Resize", (3, 4, 5), None, None, ints(8, 10), mode="nearest", axes=[2, 3], opset=18,
         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
]  # fmt: skip

FUNCTIONS = [
    case("MeanVarianceNormalization", (3, 4, 4), axes=[2, 3]),
    case("CenterCropPad", (4, 6), ints(3, 7), opset=18, axes=[1, 2]),
]

RECURRENT = [
    case("LSTM", (4, 3), values(1, 20, 3), values(1, 20, 5), values(1, 40), outputs=3, hidden_size=5),
    case("LSTM", (4, 3), values(2, 20, 3), values(2, 20, 5), values(2, 40), outputs=3, hidden_size=5,
         direction="bidirectional"),
    case("LSTM", (4, 3), values(1, 20, 3), values(1, 20, 5), outputs=3, hidden_size=5, direction="reverse"),
    case("GRU", (4, 3), values(1, 15, 3), values(1, 15, 5), values(1, 30), outputs=2, hidden_size=5,
         linear_before_reset=1),
    case("RNN", (4, 3), values(1, 5, 3), values(1, 5, 5), values(1, 10), outputs=2, hidden_size=5),
    case("RNN", (4, 3), values(1, 5, 3), values(1, 5, 5), outputs=2, hidden_size=5, activations=["Relu"]),
]  # fmt: skip

CONTRIBUTED = [
    case("Gelu", (4, 6), domain="com.microsoft"),
    case("FastGelu", (4, 6), values(6), domain="com.microsoft"),
    case("BiasGelu", (4, 6), values(6), domain="com.microsoft"),
    case("QuickGelu", (4, 6), domain="com.microsoft"),
    case("FusedMatMul", (4, 6), values(5, 6), domain="com.microsoft", transB=1, alpha=0.5),
    case("FusedConv", (3, 5, 5), values(4, 3, 3, 3), values(4), domain="com.microsoft", activation="Relu"),
    case("SkipLayerNormalization", (4, 6), values(1, 4, 6)[0:1].repeat(1, 0), values(6), values(6),
         domain="com.microsoft"),
]  # fmt: skip

CLASSICAL = [
    case(
        "Scaler", (6,), offset=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], scale=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], domain="ai.onnx.ml"
    ),
    case("Scaler", (6,), offset=[0.5], scale=[2.0], domain="ai.onnx.ml"),
    case("ArrayFeatureExtractor", (6,), ints(4, 1), domain="ai.onnx.ml"),
]

ALL = [
    *CONVOLUTIONS,
    *POOLINGS,
    *NORMS,
    *UNARY,
    *BINARY,
    *SHAPES,
    *REDUCTIONS,
    *RESIZED,
    *FUNCTIONS,
    *RECURRENT,
    *CONTRIBUTED,
    *CLASSICAL,
]


@pytest.mark.parametrize("each", ALL, ids=str)
def test_an_operator(each: Case, tmp_path: Path) -> None:
    """Opening compares the graph with ONNX Runtime itself; here with another batch and other numbers."""
    names = ["x", *("" if other is None else f"c{i}" for i, other in enumerate(each.others))]
    constants = {f"c{i}": other for i, other in enumerate(each.others) if other is not None}
    outputs = [f"y{i}" for i in range(each.outputs)]
    node = helper.make_node(each.kind, names, outputs, "node", **each.attributes)
    sizes = each.kind == "Resize" and each.others[-1].dtype == np.int64 and each.others[-1].size == 4
    batch = 1 if sizes else "n"  # of a model whose every size is given
    path = write(
        tmp_path / "model.onnx", [node], {"x": (batch, *each.shape)}, constants, outputs=outputs, opset=each.opset
    )
    found = read_onnx(path)
    x = torch.randn(1 if sizes else 5, *each.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        made = found.module(x)
    made = made if isinstance(made, tuple) else (made,)
    expected = run(path, x)
    assert len(made) == len(expected) == each.outputs
    for a, b in zip(made, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_an_operator_that_is_defined_by_others(tmp_path: Path) -> None:
    """Attention has no translation of its own: what ONNX says that it is, is read instead."""
    nodes = [helper.make_node("Attention", ["x", "x", "x"], ["y"], scale=0.3)]
    path = write(tmp_path / "model.onnx", nodes, {"x": ("n", 2, 5, 4)}, opset=23)
    found = read_onnx(path)
    x = torch.randn(4, 2, 5, 4)
    torch.testing.assert_close(found.module(x), run(path, x)[0], rtol=1e-4, atol=1e-5)


def test_a_classifier_of_scikit_learn(tmp_path: Path) -> None:
    """The class is looked up by position; probabilities in a dictionary are refused with what to do."""
    look_up = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "best"], ["class"], domain="ai.onnx.ml"),
        helper.make_node("Reshape", ["class", "flat"], ["label"]),
    ]
    constants = {"classes": ints(5, 7, 9), "flat": ints(-1)}
    path = write(tmp_path / "m.onnx", look_up, {"x": ("n", 3)}, constants, outputs=("label",))
    x = torch.randn(4, 3)
    assert torch.equal(read_onnx(path).module(x), run(path, x)[0])
    zipped = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[5, 7, 9])
    with pytest.raises(ModelError, match=r"ZipMap.*dictionary by class") as caught:
        read_onnx(write(tmp_path / "zipped.onnx", [zipped], {"x": ("n", 3)}, inferred=False))
    assert "zipmap" in caught.value.hint
