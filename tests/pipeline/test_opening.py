from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress.errors import InputError, ModelError
from compress.pipeline.opening import apply, open_model, traced
from compress.progress import Silent
from compress.request import DataSource, ModelSource, Settings

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MLP = ModelSource(SAMPLES / "digits_mlp.pt")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_seed_and_threads_are_put_in_force() -> None:
    apply(Settings(seed=5, threads=2))
    assert torch.get_num_threads() == 2
    first = torch.rand(3)
    assert apply(Settings(seed=5)) == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.equal(torch.rand(3), first)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda", 0, "--device cuda: no CUDA device was found"),
        ("cuda:1", 0, "--device cuda:1: no CUDA device was found"),
        ("cuda:2", 2, "--device cuda:2: there are 2 GPUs"),
    ],
)
def test_devices_that_are_not_there(device: str, count: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InputError) as caught:
        apply(Settings(device=device))
    assert str(caught.value) == said
    assert "--device cpu" in caught.value.hint


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert apply(Settings()) == torch.device("cuda")
    assert apply(Settings(device="cuda:1")) == torch.device("cuda:1")
    assert apply(Settings(device="cpu")) == torch.device("cpu")


class Listener(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def step(self, text: str) -> None:
        self.told.append(text)

    detail = warn = step


def test_the_file_says_the_shape_and_the_data_is_brought_to_it() -> None:
    listener = Listener()
    opened = open_model(MLP, Settings(), DataSource("digits"), listener)
    assert opened.shapes == ((64,),)
    assert opened.data is not None and opened.data.test.inputs.shape == (360, 64)
    assert listener.told[0].endswith("digits_mlp.pt: training checkpoint, mlp:64-300-100-10")
    assert any("state dict under key" in text for text in listener.told)


def test_the_data_says_the_shape_where_the_file_does_not() -> None:
    source = ModelSource(SAMPLES / "digits_mobile.pt", f"{SAMPLES}/architectures.py:mobile_cnn")
    assert open_model(source, Settings(), DataSource("digits")).shapes == ((1, 8, 8),)
    with pytest.raises(InputError, match=r"the input shape of .* is not known"):
        open_model(source, Settings())


def test_images_of_another_size_than_the_usual_one_of_an_architecture_are_taken(tmp_path: Path) -> None:
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), tmp_path / "net.pth")
    images, labels = np.zeros((4, 64, 48, 3), dtype=np.uint8), np.array([0, 1, 2, 9])
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    source = ModelSource(tmp_path / "net.pth", "torchvision:squeezenet1_1")
    data = DataSource(f"npz:{tmp_path}/data.npz")
    assert open_model(source, Settings()).shapes == ((3, 224, 224),)
    assert open_model(source, Settings(), data).shapes == ((3, 64, 48),)
    said = ModelSource(source.path, source.arch, input_shapes=((3, 224, 224),))
    with pytest.raises(InputError, match="the model takes 3x224x224"):
        open_model(said, Settings(), data)


def test_examples_are_the_same_for_the_same_seed() -> None:
    opened = open_model(MLP, Settings())
    assert torch.equal(opened.examples(3)[0], opened.examples(3)[0])
    assert not torch.equal(opened.examples(3)[0], opened.examples(3, seed=1)[0])
    assert opened.examples(7)[0].shape == (7, 64)


def test_what_the_file_says_of_its_normalisation_is_used_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).state_dict()
    content = {"state_dict": state, "arch": "mlp:4-5-2", "input_shape": [4], "mean": [2.0] * 4, "std": [4.0] * 4}
    torch.save(content, tmp_path / "model.pt")
    np.savez(tmp_path / "data.npz", x_test=np.full((3, 4), 6, np.float32), y_test=np.zeros(3, np.int64))
    source = ModelSource(tmp_path / "model.pt")
    data = open_model(source, Settings(), DataSource(f"npz:{tmp_path}/data.npz")).data
    assert data is not None and bool((data.test.inputs == 1).all())
    data = open_model(source, Settings(), DataSource(f"npz:{tmp_path}/data.npz", (0.0,), (2.0,))).data
    assert data is not None and bool((data.test.inputs == 3).all())


def test_whose_shape_it_is_decides_whose_mistake_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model cannot take inputs of 5 \(float32\)"):
        open_model(ModelSource(MLP.path, input_shapes=((5,),)), Settings())
    torch.manual_seed(0)
    state = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).state_dict()
    torch.save({"state_dict": state, "arch": "mlp:4-5-2", "input_shape": [7]}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"the model cannot take inputs of 7 \(float32\)") as caught:
        open_model(ModelSource(tmp_path / "model.pt"), Settings())
    assert caught.value.hint == "check --input-shape"


class Low(nn.Linear):
    """Its weights are of low precision."""

    def __init__(self) -> None:
        super().__init__(4, 2, dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_inputs_are_float32_whatever_the_weights_are(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save(Low().to(dtype), tmp_path / "low.pt")
    with pytest.raises(InputError, match=r"the model cannot take inputs of 4 \(float32\)") as caught:
        open_model(ModelSource(tmp_path / "low.pt", input_shapes=((4,),), trust_pickle=True), Settings())
    assert (
        f"its weights are {str(dtype).removeprefix('torch.')}" in caught.value.hint
        and "model.float()" in caught.value.hint
    )


def test_what_trust_imports_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Low(), tmp_path / "low.pt")
    listener, loaded = Listener(), []
    monkeypatch.setattr(torch, "load", lambda *_, **__: loaded.append(list(listener.told)))
    with pytest.raises(InputError):  # None is no checkpoint
        open_model(ModelSource(tmp_path / "low.pt", trust_pickle=True), Settings(), progress=listener)
    (before,) = loaded
    assert before[0].startswith("--trust-pickle: loading") and f"{Low.__module__}.Low" in before[0]


def test_a_detector_has_no_graph(tmp_path: Path) -> None:
    import torchvision

    detector = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    with pytest.raises(ModelError, match=r"is a detector \(torchvision:ssdlite320_mobilenet_v3_large\)") as caught:
        open_model(ModelSource(tmp_path / "detector.pth"), Settings())
    assert "docs/usage.md" in caught.value.hint


class Fixed(nn.Module):
    """Takes one sample at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.reshape(1, 4))


def test_a_model_for_one_sample_is_traced_with_one(tmp_path: Path) -> None:
    program = torch.export.export(Fixed().eval(), (torch.randn(1, 4),))
    torch.export.save(program, tmp_path / "one.pt2")
    found = traced(open_model(ModelSource(tmp_path / "one.pt2", input_shapes=((4,),)), Settings()))
    assert found.inputs[0].shape == (1, 4)
    assert not found.dynamic_batch


class Warned(Silent):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def test_photographs_are_made_to_fit(tmp_path: Path) -> None:
    """A state dict of torchvision and a folder of pictures of any size: neither shape nor size has to be said."""
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=2).state_dict(), tmp_path / "net.pt")
    for name, size in (("ant", (300, 240)), ("bee", (230, 260))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size).save(tmp_path / name / "1.jpg")
    source, data = ModelSource(tmp_path / "net.pt"), f"folder:{tmp_path}"
    progress = Warned()
    opened = open_model(source, Settings(), DataSource(data), progress)
    assert opened.shapes == ((3, 224, 224),) and opened.data is not None and opened.data.input_shape == (3, 224, 224)
    assert ["--mean .485" in text for text in progress.texts] == [True]
    said = open_model(ModelSource(tmp_path / "net.pt", input_shapes=((3, 64, 96),)), Settings(), DataSource(data))
    assert said.data is not None and said.data.input_shape == (3, 64, 96)
    open_model(source, Settings(), DataSource(data, mean=(0.5,), std=(0.5,)), progress)
    assert len(progress.texts) == 1


def test_photographs_for_a_network_that_takes_the_channels_last(tmp_path: Path) -> None:
    code = """
from torch import nn


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x.mean((1, 2)))
"""
    (tmp_path / "net.py").write_text(code)
    torch.save(nn.ModuleDict({"fc": nn.Linear(3, 2)}).state_dict(), tmp_path / "net.pt")
    for name, size in (("ant", (30, 24)), ("bee", (23, 26))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "pictures" / name / "1.png")
    source = ModelSource(tmp_path / "net.pt", f"{tmp_path}/net.py:Last", input_shapes=((8, 6, 3),))
    opened = open_model(source, Settings(), DataSource(f"folder:{tmp_path}/pictures"))
    assert opened.data is not None and opened.data.test.inputs.shape == (2, 8, 6, 3)
    assert opened.data.test.inputs[:, 4, 3].tolist() == [[1, 0, 0], [1, 0, 0]]
