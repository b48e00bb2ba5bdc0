from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from compress.checkpoint.write import bundle_bytes
from compress.errors import InputError
from compress.graph import trace
from compress.pipeline import export_model, formats
from compress.progress import Silent
from compress.request import ExportFormat, ExportRequest, ModelSource, Precision
from compress.result import Artifact

MLP = Path(__file__).resolve().parents[2] / "sample_models" / "digits_mlp.pt"


class News(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places alone are looked at here."""

    def write(opened: object, target: Path, precision: Precision | None = None, *_: object) -> Artifact:
        target.write_bytes(b"new")
        error = 0.5 if target.suffix == ".pt2" else 0.0
        return Artifact(target, target.suffix[1:], 3, error, precision or "fp32")

    for name in ("onnx", "pt2", "safetensors"):
        monkeypatch.setattr(formats, name, write)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(MLP, tmp_path / "model.pt"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    program = trace(torch.nn.Linear(4, 3).eval(), (torch.randn(2, 4),))
    (tmp_path / "small").mkdir()
    content = bundle_bytes(program.module, [{"shape": [4], "dtype": "float32"}], None, {})
    (tmp_path / "small" / "model.safetensors").write_bytes(content)
    return tmp_path / "small"


def written(source: Path, *formats: ExportFormat, output: Path | None = None, force: bool = False) -> list[str]:
    request = ExportRequest(ModelSource(source), formats, output, force)
    done = export_model(request, Silent())
    assert all(a.path.read_bytes() == b"new" for a in done.artifacts)
    return [str(a.path.relative_to(source.parent)) for a in done.artifacts]


def test_beside_a_file_under_its_name(model: Path) -> None:
    assert written(model, "onnx", "pt2", "safetensors") == ["model.onnx", "model.pt2", "model.safetensors"]


def test_into_a_bundle_under_the_names_of_a_bundle(bundle: Path) -> None:
    assert written(bundle, "onnx", "pt2") == ["small/model.onnx", "small/model.pt2"]
    assert written(bundle, "onnx") == ["small/model.onnx"]  # its own older one goes
    before = (bundle / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="is the model itself"):
        written(bundle, "onnx", "safetensors", force=True)
    assert (bundle / "model.safetensors").read_bytes() == before


def test_into_a_directory_that_is_made(model: Path, tmp_path: Path) -> None:
    assert written(model, "onnx", output=tmp_path / "a" / "b") == ["a/b/model.onnx"]


def test_what_is_there_is_replaced_by_force_alone(model: Path) -> None:
    other = model.with_suffix(".onnx")
    other.write_bytes(b"old")
    with pytest.raises(InputError, match=r"model.onnx exists") as caught:
        written(model, "pt2", "onnx")
    assert "--force" in caught.value.hint
    assert other.read_bytes() == b"old"
    assert not model.with_suffix(".pt2").exists()
    assert written(model, "onnx", force=True) == ["model.onnx"]


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    model = Path(shutil.copy(MLP, tmp_path / "model.onnx"))  # the name says nothing about the form
    before = model.read_bytes()
    with pytest.raises(InputError, match="is the model itself"):
        written(model, "onnx", force=True)
    assert model.read_bytes() == before


def test_an_artifact_that_computes_something_else_is_told(model: Path) -> None:
    news = News()
    export_model(ExportRequest(ModelSource(model), ("onnx", "pt2")), news)
    assert news.warnings == [f"what {model.with_suffix('.pt2')} computes differs from the model by 5.0e-01"]


@pytest.mark.parametrize("opset", [6, 99])
def test_an_opset_that_nobody_writes_is_refused_at_once(model: Path, opset: int) -> None:
    with pytest.raises(InputError, match=f"--opset {opset}: there is no such version"):
        export_model(ExportRequest(ModelSource(model), ("onnx",), opset=opset), Silent())
    assert not model.with_suffix(".onnx").exists()
