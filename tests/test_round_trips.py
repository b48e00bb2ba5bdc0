"""Every form of checkpoint in, every form out: what is written computes what was read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import compress
from compress.checkpoint import load_model
from compress.checkpoint.pt2 import read_pt2
from compress.checkpoint.reload import largest_error
from compress.checkpoint.write import bundle_bytes
from compress.export import export_onnx, export_pt2, pt2, runtime
from compress.export.precision import lowered
from compress.export.runtime import OnnxModule
from compress.graph import ModuleSlice, trace
from compress.pipeline.module_file import module_file

SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"
ARCH = "mlp:6-5-3"
INPUTS: list[dict[str, Any]] = [{"shape": [6], "dtype": "float32"}]


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def _save(content: Callable[[nn.Module], Any], **options: Any) -> Callable[[nn.Module, Path], Path]:
    def write(module: nn.Module, folder: Path) -> Path:
        torch.save(content(module), folder / "model.pth", **options)
        return folder / "model.pth"

    return write


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def _safetensors(module: nn.Module, folder: Path) -> Path:
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def _shards(module: nn.Module, folder: Path) -> Path:
    places = {name: f"part{number % 2}.safetensors" for number, name in enumerate(module.state_dict())}
    for file in set(places.values()):
        save_file({n: t for n, t in module.state_dict().items() if places[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def _torchscript(module: nn.Module, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), folder / "model.ts")
    return folder / "model.ts"


def _pt2(module: nn.Module, folder: Path) -> Path:
    return export_pt2(module, (torch.randn(2, 6),), folder / "model.pt2").path


def _onnx(module: nn.Module, folder: Path) -> Path:
    return export_onnx(module, (torch.randn(2, 6),), folder / "model.onnx").path


def _bundle(module: nn.Module, folder: Path) -> Path:
    content = bundle_bytes(trace(module, (torch.randn(2, 6),)).module, INPUTS, None, {})
    (folder / "model.safetensors").write_bytes(content)
    return folder


FORMS_IN: dict[str, tuple[Callable[[nn.Module, Path], Path], bool]] = {  # and whether --arch has to be said
    "state dict": (_save(lambda m: m.state_dict()), True),
    "legacy": (_save(lambda m: m.state_dict(), _use_new_zipfile_serialization=False), True),
    "training checkpoint": (_save(lambda m: {"epoch": 1, "model": _prefixed(m.state_dict())}), True),
    "averaged": (_save(lambda m: [{"ema": m.state_dict()}, 0.9]), True),
    "safetensors": (_safetensors, True),
    "shards": (_shards, True),
    "TorchScript": (_torchscript, True),
    "module": (_save(lambda m: m), False),
    "pt2": (_pt2, False),
    "bundle": (_bundle, False),
    "ONNX": (_onnx, False),
}  # fmt: skip

Run = Callable[[Tensor], Any]


def _to_bundle(module: nn.Module, x: Tensor, folder: Path) -> Run:
    (folder / "model.safetensors").write_bytes(bundle_bytes(trace(module, (x,)).module, INPUTS, None, {}))
    return compress.load(folder)


def _to_stored_in_16_bits(module: nn.Module, x: Tensor, folder: Path) -> Run:
    content = bundle_bytes(trace(module, (x,)).module, INPUTS, None, {}, precision=torch.bfloat16)
    (folder / "model.safetensors").write_bytes(content)
    return compress.load(folder)


def _to_module(module: nn.Module, x: Tensor, folder: Path) -> Run:
    network = trace(module, (x,)).module
    made = module_file(ModuleSlice(module, {}), network, (x,))
    assert made is not None
    (folder / "module.safetensors").write_bytes(made[0])
    return load_model(folder / "module.safetensors", arch=ARCH).module


FORMS_OUT: dict[str, tuple[Callable[[nn.Module, Tensor, Path], Run], float]] = {  # and the error that is allowed
    "bundle": (_to_bundle, 1e-6),
    "bundle, stored in 16 bits": (_to_stored_in_16_bits, 2e-2),
    "state dict of the class": (_to_module, 1e-6),
    "pt2": (lambda m, x, folder: read_pt2(export_pt2(m, (x,), folder / "model.pt2").path).module, 1e-6),
    "ONNX": (lambda m, x, folder: OnnxModule(export_onnx(m, (x,), folder / "model.onnx").path), 1e-4),
}


# A graph has no class
PAIRS = [
    (a, b)
    for a in FORMS_IN
    for b in FORMS_OUT
    if not (a in ("pt2", "bundle", "ONNX") and b == "state dict of the class")
]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would do, done here: it takes seconds, and tests of each form do it."""

    def load(_: str, arguments: Sequence[Any], inputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        module = torch.export.load(arguments[0]).module()
        return [module(*batch) for batch in inputs]

    monkeypatch.setattr(runtime, "_alone", lambda file, batch: list(OnnxModule(file)(*batch)))
    monkeypatch.setattr(pt2, "apart", load)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("form", "out"), PAIRS)
def test_every_form_in_and_out(form: str, out: str, original: nn.Module, tmp_path: Path) -> None:
    write, named = FORMS_IN[form]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = write(original, tmp_path / "in")
    module = load_model(source, arch=ARCH if named else None, trust_pickle=form == "module").module
    export, allowed = FORMS_OUT[out]
    x = torch.randn(4, 6)
    again = export(module, x, tmp_path / "out")
    assert largest_error(again(x), original(x)) <= allowed


@pytest.mark.usefixtures("in_this_process")
def test_half_precision_of_a_larger_model(tmp_path: Path) -> None:
    module = load_model(SAMPLES / "digits_vit.pt2").module
    x = torch.rand(2, 1, 8, 8)
    low = lowered(module, (x,), torch.float16)
    found = export_pt2(low, (x,), tmp_path / "model.pt2", against=module)
    assert 0 < found.max_error < 5e-3
    again = load_model(found.path)
    assert largest_error(again.module(x), module(x)) < 5e-3


def test_int8_of_the_residual_network(invoke: Callable[..., Any], tmp_path: Path) -> None:
    words = [str(SAMPLES / "digits_resnet.safetensors"), "--arch", f"{SAMPLES}/architectures.py:residual_cnn"]
    done = invoke("export", *words, "--quantize", "int8", "--data", "digits", "-o", str(tmp_path), "--json")
    assert done.code == 0, done.err
    whole, small = json.loads(done.out)["artifacts"]
    assert (whole["precision"], small["precision"]) == ("fp32", "int8")
    assert small["bytes"] == (tmp_path / "model.int8.onnx").stat().st_size <= 0.3 * whole["bytes"]
    assert whole["accuracy"]["accuracy"] - small["accuracy"]["accuracy"] <= 0.01
    assert whole["error"] < 1e-4 < small["error"] < 0.1
