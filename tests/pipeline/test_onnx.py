"""ONNX in, ONNX out: from the command line to a smaller file that computes what the masked original does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import compress
from compress.budget import Budget
from compress.checkpoint.read import load_model
from compress.checkpoint.userfile import load_callable
from compress.graph import analyse, slice_verified, trace
from compress.plugin import Context, make_plan
from compress.registry import create
from tests.checkpoint.onnx.models import run, values, write

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
ARCHITECTURES = SAMPLES / "architectures.py"
Invoke = Callable[..., Any]


class Net(nn.Module):
    """Convolutions with a norm, a residual sum and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1))
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def export(module: nn.Module, path: Path, dynamo: bool, opset: int | None = None, size: int = 8) -> Path:
    x = torch.randn(2, 1, size, size)
    settings: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"], "opset_version": opset}
    if dynamo:
        settings |= {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},), "external_data": False, "verbose": False}
    else:
        settings["dynamic_axes"] = {"image": {0: "n"}, "scores": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), path, dynamo=dynamo, **settings)
    model = onnx.load(path)
    helper.set_model_props(model, {"names": "{0: 'zero', 1: 'one'}"})
    onnx.save(model, path)
    return path


def masked(original: Path, bundle: Path, target: Path) -> Path:
    """The original with everything at zero that the plan removed: the slice must compute the same."""
    plan = json.loads((bundle / "plan.json").read_text())
    facts = load_model(bundle).onnx
    assert facts is not None
    model = onnx.load(original)
    left = {each.name: each for each in model.graph.initializer}
    assert plan["kept"]
    for name, dims in plan["kept"].items():
        proto = left[facts.names.get(name, name)]
        array = numpy_helper.to_array(proto).copy()
        for dim, kept in dims.items():
            axis = 1 - int(dim) if name in facts.transposed else int(dim)
            gone = np.setdiff1d(np.arange(array.shape[axis]), kept)
            np.moveaxis(array, axis, 0)[gone] = 0
        proto.CopyFrom(numpy_helper.from_array(array, proto.name))
    onnx.save(model, target)
    return target


def check(original: Path, bundle: Path, tolerance: float = 1e-4) -> dict[str, Any]:
    """The sliced file against the masked original, both in ONNX Runtime, and against the bundle; the report."""
    smaller, one = bundle / "model.onnx", masked(original, bundle, bundle.parent / "masked.onnx")
    onnx.checker.check_model(str(smaller), full_check=True)
    x = torch.rand(5, *load_model(bundle).input_shapes[0])  # type: ignore[index]
    expected, found = run(one, x)[0], run(smaller, x)[0]
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(compress.load(bundle)(x), found, rtol=1e-4, atol=1e-4)
    models = [onnx.load(path) for path in (original, smaller)]
    for kept in (lambda m: m.ir_version, lambda m: m.metadata_props, lambda m: m.graph.input[0].type):
        assert kept(models[0]) == kept(models[1])
    names = [model.graph for model in models]
    assert [p.name for p in names[0].output] == [p.name for p in names[1].output]
    weights = {each.name for each in names[0].initializer}
    assert [p.name for p in names[0].input if p.name not in weights] == [p.name for p in names[1].input]
    assert weights >= {each.name for each in names[1].initializer if "bias" in each.name}
    report: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    assert report["verification"]["slice"] <= 1e-9
    assert report["verification"]["onnx"] <= 1e-4
    assert report["after"]["files"]["model.onnx"] == smaller.stat().st_size < original.stat().st_size
    return report


def opset(path: Path) -> int:
    return int(onnx.load(path).opset_import[0].version)


@pytest.mark.parametrize(("dynamo", "version"), [(True, None), (False, 11)])
def test_an_export_of_torch(tmp_path: Path, invoke: Invoke, dynamo: bool, version: int | None) -> None:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    path = export(net, tmp_path / "net.onnx", dynamo, version)
    before = path.read_bytes()
    done = invoke("prune", str(path), "--ratio", "0.3", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    report = check(path, tmp_path / "out")
    assert report["input"]["form"] == "onnx"
    assert sum(g["after"] for g in report["groups"]) < sum(g["before"] for g in report["groups"])
    assert opset(tmp_path / "out" / "model.onnx") == opset(path)
    assert "model.onnx, in ONNX Runtime" in done.out
    assert path.read_bytes() == before


def test_open_sizes_stay_open(tmp_path: Path, invoke: Invoke) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "conv.w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "head.w"], ["y"]),
    ]
    constants = {"conv.w": values(8, 3, 3, 3), "head.w": values(2, 8, 1, 1)}
    path = write(tmp_path / "m.onnx", nodes, {"x": ("n", 3, "h", "w")}, constants, opset=11)
    out = tmp_path / "out"
    done = invoke("prune", str(path), "--input-shape", "3,8,8", "--ratio", "0.5", "-o", str(out))
    assert done.code == 0 and "leaves sizes open" not in done.err, done.err
    check(path, out)
    x = torch.randn(2, 3, 6, 10)
    expected = run(tmp_path / "masked.onnx", x)[0]
    torch.testing.assert_close(run(out / "model.onnx", x)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_network_for_one_batch_alone(tmp_path: Path, invoke: Invoke) -> None:
    """Its rows meet; the file says so and is as small."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[0]),
    ]
    path = write(tmp_path / "m.onnx", nodes, {"x": (1, 6)}, {"a": values(6, 20), "b": values(20, 2)})
    out = tmp_path / "out"
    done = invoke("prune", str(path), "--ratio", "0.5", "-o", str(out))
    assert done.code == 0, done.err
    assert "model.onnx takes batches of 1 alone: the network is built for it" in " ".join(done.err.split())
    x = torch.randn(1, 6)
    expected = run(masked(path, out, tmp_path / "masked.onnx"), x)[0]
    torch.testing.assert_close(run(out / "model.onnx", x)[0], expected, rtol=1e-4, atol=1e-5)
    assert (out / "model.onnx").stat().st_size < path.stat().st_size


def old_network(path: Path) -> Path:
    """As CNTK wrote it: opset 8, a batch of one, initialisers among the inputs, numbers for names."""
    nodes = [
        helper.make_node("Conv", ["image", "23", ""], ["c"], auto_pad="SAME_UPPER", kernel_shape=[5, 5]),
        helper.make_node("Add", ["c", "24"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "times/W:0"], ["m"]),
        helper.make_node("Add", ["m", "plus"], ["scores"]),
    ]
    nodes[0].input[:] = ["image", "23"]
    constants = {
        "23": values(8, 1, 5, 5),
        "24": values(8, 1, 1),
        "shape": np.array([1, 128]),
        "times/W:0": values(128, 10),
        "plus": values(1, 10),
    }
    inputs = {"image": (1, 1, 8, 8)}
    return write(path, nodes, inputs, constants, outputs=("scores",), opset=8, listed=True)


def test_an_old_file_stays_one(tmp_path: Path, invoke: Invoke) -> None:
    path = old_network(tmp_path / "old.onnx")
    done = invoke("prune", str(path), "--ratio", "0.3", "--data", "digits", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert opset(tmp_path / "out" / "model.onnx") == 8
    model = load_model(tmp_path / "out")
    assert model.onnx is not None and model.onnx.opset == 8
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(run(tmp_path / "out" / "model.onnx", x)[0], model.module(x), rtol=1e-4, atol=1e-4)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    refitted = [n for n, note in report["method"]["notes"].items() if "error after refit / before" in note]
    assert "times.W_0" in refitted
    # it is judged by the size of the ONNX file, as the report does
    bundle, size = tmp_path / "out", (tmp_path / "out" / "model.onnx").stat().st_size
    given = ("--limit", f"max_bytes={size}", "--limit", "max_bytes_growth=10 %", "--json")
    for subject in (bundle, bundle / "report.json"):
        done = invoke("check", str(subject), *given)
        assert done.code == 0, done.err
        found = {each["name"]: each for each in json.loads(done.out)["limits"]}
        assert (found["max_bytes"]["found"], found["max_bytes_growth"]["reference"]) == (size, path.stat().st_size)
    # and the bundle is exported with the same names; in int8 in the opset that has scales per channel
    words = ("--onnx", "--quantize", "int8", "--data", "digits")
    done = invoke("export", str(tmp_path / "out"), *words, "-o", str(tmp_path / "again"))
    assert done.code == 0, done.err
    for name, version in (("model.onnx", 8), ("model.int8.onnx", 13)):
        again = onnx.load(tmp_path / "again" / name)
        assert (again.graph.input[0].name, again.graph.output[0].name) == ("image", "scores")
        assert opset(tmp_path / "again" / name) == version
    assert "model.int8.onnx has opset 13 or later" in done.err


def test_inspect_eval_and_measure(tmp_path: Path, invoke: Invoke) -> None:
    path = old_network(tmp_path / "old.onnx")
    done = invoke("inspect", str(path))
    assert done.code == 0, done.err
    for line in ("ONNX opset    8", "producer      by hand", "initialisers  5", "inputs        image"):
        assert line in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["23", "conv2d", "8x1x5x5", "208"] in rows
    assert ["times.W_0", "linear", "10x128", "1.29", "k"] in rows
    found = json.loads(invoke("inspect", str(path), "--json").out)
    assert found["onnx"]["names"] == {"times.W_0": "times/W:0"}
    assert json.loads(invoke("eval", str(path), "--data", "digits", "--json").out)["accuracy"]["count"] == 360
    assert invoke("measure", str(path), "--runs", "3", "--warmup", "0").code == 0


def test_what_a_graph_for_inference_cannot_do(tmp_path: Path, invoke: Invoke) -> None:
    path = old_network(tmp_path / "old.onnx")
    for words in (
        ("finetune", str(path), "--data", "digits", "--epochs", "1"),
        ("prune", str(path), "--data", "digits", "--epochs", "1"),
        ("retrain", str(path), "--mode", "annealing", "--data", "digits", "--epochs", "1"),
    ):
        done = invoke(*words, "-o", str(tmp_path / "out"))
        assert done.code == 3
        assert "comes from an ONNX model, which is made for inference" in done.err
        assert "train the model that it was exported from" in done.err
        assert not (tmp_path / "out").exists()


def test_errors_reach_the_command_line(tmp_path: Path, invoke: Invoke) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"], "node 7")], {"x": ("n", 3)})
    done = invoke("inspect", str(path))
    assert done.code == 3 and "NonZero 'node 7' (opset 17)" in done.err and "try:" in done.err
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:40])
    done = invoke("inspect", str(tmp_path / "cut.onnx"))
    assert done.code == 2 and "truncated" in done.err


@pytest.mark.parametrize(
    ("name", "arch", "version"),
    [
        ("digits_mlp.pt", None, 8),
        ("digits_resnet.safetensors", f"{ARCHITECTURES}:residual_cnn", 9),
        ("digits_mobile.pt", f"{ARCHITECTURES}:mobile_cnn", 13),
        ("digits_vit.pt2", f"{ARCHITECTURES}:vit", 14),
    ],
)
def test_the_sample_models_come_in_and_are_cut(tmp_path: Path, name: str, arch: str | None, version: int) -> None:
    """By the older exporter, which writes norms and activations as single steps."""
    module: Any = load_model(SAMPLES / name, arch=arch).module
    if name == "digits_vit.pt2":  # holds a graph, which this exporter follows for one batch alone
        graph, module = module, load_callable(arch or "", flag="--arch")()
        module.load_state_dict(graph.state_dict())
    elif name == "digits_mlp.pt":
        module = nn.Sequential(nn.Flatten(), *module)
    path = tmp_path / "sample.onnx"
    found = load_model(export(module, path, dynamo=False, opset=version))
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), module(x), rtol=1e-4, atol=1e-4)
    program = trace(found.module, (x,))
    assert program.dynamic_batch
    coupling = analyse(program)
    plan = make_plan(create("dependency", {})[1], Context(coupling, Budget("ratio", 0.3)))
    cut = slice_verified(coupling, plan.removed)
    assert cut.verification.error <= 1e-9 and not cut.rolled_back
    size, before = (sum(p.numel() for p in m.parameters()) for m in (cut.module, found.module))
    assert size < 0.75 * before
