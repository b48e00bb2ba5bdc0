"""Each command: what it asks the pipeline, and how it shows the answer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.evaluate import Accuracy, ClassAccuracy
from compress.report import GroupChange, Held, InputFile, Measures, Method, Prunable, Verification, build_report
from compress.request import (
    BudgetTarget,
    DataSource,
    EvalRequest,
    ExportRequest,
    InspectRequest,
    MeasureRequest,
    ModelSource,
    PruneRequest,
    Settings,
)
from compress.result import (
    Artifact,
    Evaluation,
    Exported,
    Inspection,
    Kept,
    Layer,
    Measurement,
    Pruned,
    Size,
    Timing,
    UnitGroup,
)

Call = Callable[..., Any]
MODEL = ModelSource(Path(__file__))

INSPECTION = Inspection(
    path=Path("model.pt"),
    form="state dict",
    architecture="mlp:64-300-10",
    sha256="ab" * 32,
    bytes=90_000,
    input_shapes=((64,),),
    parameters=22_510,
    macs=22_200,
    layers=(Layer("fc1", "Linear", (300, 64), 19_500),),
    groups=(UnitGroup("fc1", "features", 300, ("fc1.weight", "fc1.bias", "fc2.weight")),),
    frozen=(Kept("fc2", "output of the model"),),
    notes=("state dict under key 'model'",),
    prunable=Prunable(900, 1000, (Held("an operation without a rule", "aten::sort", ("a", "b", "c", "d"), 100),)),
)


def pruned(accuracy: bool = True) -> Pruned:
    before, after = Accuracy(90, 100, 0.9, 0.825, 0.945, ()), Accuracy(88, 100, 0.88, 0.8, 0.93, ())
    return Pruned(
        bundle=Path("small"),
        before=Size(1000, 50_000, 4000, before if accuracy else None),
        after=Size(500, 20_000, 2000, after if accuracy else None),
        units_before=100,
        units_after=70,
        error=1.5e-15,
        report=build_report(
            command=("compress", "prune", "model.pt"),
            seed=0,
            device="cpu",
            input=InputFile("model.pt", "0" * 64, 4200, "state dict", "mlp:4-8-2"),
            method=Method("dependency"),
            before=Measures(1000, macs=50_000, accuracy=before if accuracy else None),
            after=Measures(500, macs=20_000, accuracy=after if accuracy else None),
            groups=(GroupChange("fc1", "channels", 100, 70),),
            verification=Verification(slice=1.5e-15, reload=0.0),
        ),
    )


def asked(pipeline: Any) -> Any:
    (request,) = pipeline.asked
    return request


def test_inspect(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = INSPECTION
    done = run("inspect", checkpoint, "--input-shape", "64", "--input-shape", "3x4")
    assert done.code == 0
    assert asked(pipeline) == InspectRequest(ModelSource(Path(checkpoint), input_shapes=((64,), (3, 4))))
    for text in (
        "mlp:64-300-10",
        "22.5 k",
        "300x64",
        "fc1, fc2",
        "(300 in all)",
        "output of the model",
        "under key 'model'",
        "900 of 1,000 channel indices of layer weights (90.00 %)",
        "aten::sort  a, b, c and 1 more",
    ):
        assert text in done.out


def test_inspect_as_json(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = INSPECTION
    shown = json.loads(run("inspect", checkpoint, "--json").out)
    assert shown["schema"] == "compress.inspection/1"
    assert shown["path"] == "model.pt"
    assert shown["input_shapes"] == [[64]]
    assert shown["groups"][0]["tensors"] == ["fc1.weight", "fc1.bias", "fc2.weight"]


def test_prune_defaults(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = pruned()
    done = run("prune", checkpoint)
    assert done.code == 0
    assert asked(pipeline) == PruneRequest(
        model=ModelSource(Path(checkpoint)),
        output=Path("compressed"),
        method="dependency",
        budget=BudgetTarget("ratio", 0.3),
        command=("compress", "prune", checkpoint),
    )
    assert "no budget given" in done.err.lower()
    lines = done.out.splitlines()
    assert lines[0].split() == ["before", "after", "change"]
    assert lines[1].split() == ["units", "100", "70", "-30.0", "%"]
    assert "-2.00 points" in done.out
    assert "masked original by 1.5e-15" in done.out
    assert done.out.splitlines()[-2:] == ["Next:", "  compress export small --onnx"]


def test_prune_tells_what_it_wrote_and_what_to_type_next(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = pruned()
    Path("small").mkdir()
    for name in ("model.safetensors", "report.md", "other.txt"):
        Path("small", name).touch()
    done = run("prune", checkpoint, "--data", "npz:my data.npz", "--mean", ".5", "--std", ".25")
    assert 'small/model.safetensors  weights and graph; in Python: compress.load("small")' in done.out.splitlines()
    assert "small/report.md" in done.out
    assert "plan.json" not in done.out and "other.txt" not in done.out
    assert done.out.splitlines()[-1] == "  compress eval small --data 'npz:my data.npz'"


def test_prune_everything(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = pruned(accuracy=False)
    words = shlex.split(
        "prune --bin 50 model.pt --method tetris --trim=0.1 --macs 2G --arch m.py:build"
        " --data digits --mean .5 --std .25 --only 'conv*' --exclude head --exclude stem --prune-outputs"
        " --prune-inputs"
        " --allow-frozen"
        " --keep-module --granularity weight -o small --force --seed 3 --device cpu --threads 1 -q"
    )
    done = run(*words, "--arch-args", '{"width": 8}')
    assert (done.code, done.out, done.err) == (0, "small\n", "")
    assert asked(pipeline) == PruneRequest(
        model=ModelSource(Path(checkpoint), "m.py:build", {"width": 8}),
        output=Path("small"),
        method="tetris",
        options={"bin": "50", "trim": "0.1"},
        budget=BudgetTarget("macs", 2e9),
        granularity="weight",
        only=("conv*",),
        exclude=("head", "stem"),
        prune_outputs=True,
        prune_inputs=True,
        allow_frozen=True,
        keep_module=True,
        data=DataSource("digits", (0.5,), (0.25,)),
        force=True,
        settings=Settings(3, "cpu", 1),
        command=("compress", *words, "--arch-args", '{"width": 8}'),
    )


def test_prune_spreads_its_budget(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = pruned()
    words = shlex.split(
        "prune model.pt --params 0.5 --allocation block --ratio-of 'conv*=0.25' --ratio-of head=0 --round-to auto"
        " --target cuda --steps 4"
    )
    assert run(*words).code == 0
    assert asked(pipeline) == PruneRequest(
        model=ModelSource(Path(checkpoint)),
        output=Path("compressed"),
        budget=BudgetTarget("params", 0.5),
        allocation="block",
        ratio_of=(("conv*", 0.25), ("head", 0.0)),
        round_to="auto",
        target="cuda",
        steps=4,
        command=("compress", *words),
    )


def test_a_method_that_decides_itself_gets_no_budget(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = pruned()
    done = run("prune", checkpoint, "--method", "tetris", "--json")
    assert asked(pipeline).budget is None
    assert json.loads(done.out)["schema"] == "compress.report/1"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--ratio", "1.0"], "--ratio must be between 0 and 1, got 1"),
        (["--ratio", "30"], "--ratio must be between 0 and 1, got 30"),
        (["--ratio", ".3", "--macs", ".5"], "--ratio and --macs are budgets"),
        (["--rato", "0.3"], "no option --rato"),
        (["--allocation", "even"], "invalid value for '--allocation'"),
        (["--ratio-of", "conv1"], "--ratio-of: 'conv1' is not GLOB=FRACTION"),
        (["--round-to", "0"], "--round-to must be at least 1, got 0"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--method", "tetriss"], "no method 'tetriss'"),
        (["other.pt"], "one MODEL at a time, got model.pt and other.pt"),
        (["--mean", ".5", "--std", ".5"], "--mean and --std say how to read data"),
        (["--granularity", "row"], "invalid value for '--granularity'"),
    ],
)
def test_prune_refuses(run: Call, pipeline: Any, checkpoint: str, words: list[str], error: str) -> None:
    done = run("prune", checkpoint, *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.err
    assert pipeline.asked == []


def test_prune_without_a_model(run: Call, pipeline: Any) -> None:
    done = run("prune", "--method", "tetris", "--bin", "3")
    assert done.code == 2
    assert "missing argument 'MODEL'" in done.err


def test_eval(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = Evaluation(Path(checkpoint), "digits", Accuracy(90, 100, 0.9, 0.825, 0.945, ()))
    done = run("eval", checkpoint, "--data", "digits", "--batch-size", "8")
    assert asked(pipeline) == EvalRequest(ModelSource(Path(checkpoint)), DataSource("digits"), 8)
    assert "90.00 %" in done.out
    assert "82.50 % to 94.50 %" in done.out and "confidence" not in done.out
    assert run("eval", checkpoint, "--data", "digits", "-q").out == "0.900000\n"
    assert json.loads(run("eval", checkpoint, "--data", "digits", "--json").out)["accuracy"]["correct"] == 90


def test_eval_tells_confidence(run: Call, pipeline: Any, checkpoint: str) -> None:
    classes = (ClassAccuracy(3, 4, 0.75), ClassAccuracy(2, 2, 0.5), ClassAccuracy(0, 1))
    pipeline.answer = Evaluation(Path(checkpoint), "digits", Accuracy(5, 7, 5 / 7, 0.4, 0.9, classes))
    assert "62.50 % where right, mean of 2 classes" in run("eval", checkpoint, "--data", "digits").out
    told = json.loads(run("eval", checkpoint, "--data", "digits", "--json").out)
    assert told["accuracy"]["per_class"][2] == {"correct": 0, "count": 1, "confidence": None}


def test_eval_needs_data(run: Call, pipeline: Any, checkpoint: str) -> None:
    done = run("eval", checkpoint)
    assert done.code == 2
    assert done.err == "error: eval needs --data\n  try: compress eval model.pt --data digits\n"


def test_measure(run: Call, pipeline: Any, checkpoint: str) -> None:
    fast = Timing(Path("b"), 500, 500, 2000, 2000, 0.001, 0.002)
    slow = Timing(Path("a"), 1000, 1000, 5000, 4000, 0.002, 0.003)
    pipeline.answer = Measurement((slow, fast), 2.0, 4, 10, 1, "cpu")
    Path("other.pt").write_bytes(b"")
    done = run("measure", checkpoint, "--against", "other.pt", "--batch-size", "4", "--runs", "10")
    assert asked(pipeline) == MeasureRequest(
        ModelSource(Path(checkpoint)), ModelSource(Path("other.pt")), batch_size=4, runs=10
    )
    assert "2.00 ms" in done.out
    assert "b takes 0.50 of the time of a (2.00x as fast)" in done.out
    assert "10 runs, batch 4, torch on cpu, 1 thread\n" in done.out
    quiet = run("measure", checkpoint, "-q")
    assert quiet.out == "0.002000000\n0.001000000\n"


def test_measure_in_onnx_runtime(run: Call, pipeline: Any, checkpoint: str) -> None:
    timing = Timing(Path("a"), 1000, 1000, 5000, 4000, 0.002, 0.003)
    pipeline.answer = Measurement((timing,), None, 1, 50, 2, "cpu", "onnxruntime")
    done = run("measure", checkpoint, "--runtime", "onnxruntime", "--threads", "2")
    assert asked(pipeline).runtime == "onnxruntime"
    assert "50 runs, batch 1, onnxruntime on cpu, 2 threads\n" in done.out
    refused = run("measure", checkpoint, "--runtime", "onnxruntime", "--device", "cuda:0")
    assert refused.code == 2 and "--runtime onnxruntime runs on the CPU" in refused.err
    assert run("measure", checkpoint, "--runtime", "tflite").code == 2


def test_export(run: Call, pipeline: Any, checkpoint: str) -> None:
    pipeline.answer = Exported((Artifact(Path("compressed/model.onnx"), "onnx", 4000, 1e-6),))
    Path("compressed").mkdir()
    done = run("export")
    assert asked(pipeline) == ExportRequest(ModelSource(Path("compressed")))
    assert done.out.splitlines()[1].split() == ["compressed/model.onnx", "onnx", "4.00", "kB", "1.0e-06"]
    run("export", checkpoint, "--pt2", "--onnx", "-o", "out")
    assert pipeline.asked[1] == ExportRequest(ModelSource(Path(checkpoint)), ("onnx", "pt2"), Path("out"))


def test_export_in_lower_precision(run: Call, pipeline: Any, checkpoint: str) -> None:
    accuracy = Accuracy(95, 100, 0.95, 0.9, 0.98, ())
    pipeline.answer = Exported(
        (
            Artifact(Path("model.onnx"), "onnx", 4000, 1e-6, "fp32", accuracy),
            Artifact(Path("model.int8.onnx"), "onnx", 1000, 1e-2, "int8", None),
        )
    )
    done = run("export", checkpoint, "--quantize", "int8", "--data", "digits", "--opset", "18")
    source = ModelSource(Path(checkpoint))
    assert asked(pipeline) == ExportRequest(source, quantize="int8", data=DataSource("digits"), opset=18)
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0][-1] == "accuracy" and "precision" in rows[0]
    assert rows[1] == ["model.onnx", "onnx", "fp32", "4.00", "kB", "1.0e-06", "95.00", "%"]
    assert rows[2] == ["model.int8.onnx", "onnx", "int8", "1.00", "kB", "1.0e-02", "-"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--quantize int8", "add --data"),
        ("--quantize int8 --pt2 --data digits", "leave out --pt2"),
        ("--quantize bf16", "--quantize fp16, or --pt2"),
        ("--opset 18 --pt2", "add --onnx"),
        ("--opset 0", "--opset must be at least 1"),
        ("--no-pack", "add --safetensors"),
        ("--quantize int4", "'--quantize': 'int4' is not one of"),
    ],
)
def test_export_of_what_does_not_go_together(run: Call, pipeline: Any, checkpoint: str, words: str, said: str) -> None:
    done = run("export", checkpoint, *words.split())
    assert done.code == 2 and said in done.err
    assert pipeline.asked == []


def test_export_of_a_bundle_that_is_not_there(run: Call, pipeline: Any, checkpoint: str) -> None:
    done = run("export")
    assert done.code == 2
    assert done.err.startswith("error: compressed does not exist\n  try: compress prune writes it")
