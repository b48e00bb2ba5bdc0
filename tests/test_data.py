"""Data sources give normalised tensors, or one clear error."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compress.data import Data, Split, load_data
from compress.errors import InputError
from compress.pictures import ImageShape


def save(path: Path, **arrays: Any) -> str:
    named: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(path, **named)
    return f"npz:{path}"


def test_digits_are_split_as_the_sample_models_were() -> None:
    data = load_data("digits")
    assert data.train is not None
    assert (len(data.train), len(data.test), data.classes) == (1437, 360, 10)
    assert data.input_shape == (1, 8, 8)
    assert data.test.inputs.dtype == torch.float32 and data.test.targets.dtype == torch.int64
    assert (float(data.train.inputs.min()), float(data.train.inputs.max())) == (0.0, 1.0)
    assert torch.bincount(data.test.targets).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_fit_to_flattens_and_back() -> None:
    split = Split(torch.arange(8.0).reshape(2, 1, 2, 2), torch.tensor([0, 1]))
    flat = split.fit_to((4,))
    assert flat.inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(flat.fit_to((1, 2, 2)).inputs, split.inputs)
    assert split.fit_to((1, 2, 2)) is split
    assert split.fit_to((2, 2)).inputs.shape == (2, 2, 2)


def test_fit_to_a_model_that_takes_the_channels_last() -> None:
    split = Split(torch.arange(12.0).reshape(1, 3, 2, 2), torch.tensor([0]))
    assert split.fit_to((2, 2, 3)).inputs.tolist() == [[[[0, 4, 8], [1, 5, 9]], [[2, 6, 10], [3, 7, 11]]]]


@pytest.mark.parametrize(("shape", "wanted"), [((1, 8, 8), (3, 224, 224)), ((3, 4, 5), (5, 4, 3))])
def test_fit_to_names_both_shapes(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    data = Data("x", None, Split(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64)), 1)
    has, takes = ("x".join(map(str, each)) for each in (shape, wanted))
    with pytest.raises(InputError, match=f"the data has images of {has}, the model takes {takes}"):
        data.fit_to(wanted)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_npz_images(layout: str, tmp_path: Path) -> None:
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[1, 2, 3] = (255, 51, 0)
    given = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    labels = np.array([0, 2], np.uint8)
    spec = save(tmp_path / "d.npz", train_images=given, train_labels=labels, test_images=given[1:], test_labels=[1])
    data = load_data(spec)
    assert data.train is not None and data.train.inputs.shape == (2, 3, 4, 5)
    torch.testing.assert_close(data.test.inputs[0, :, 2, 3], torch.tensor([1.0, 0.2, 0.0]))
    assert data.classes == 3


def test_npz_grey_images_and_normalisation(tmp_path: Path) -> None:
    images = np.full((3, 2, 2), 255, np.uint8)
    spec = save(tmp_path / "d.npz", x_train=images, y_train=[0, 1, 1], x_test=images, y_test=[[0], [1], [0]])
    data = load_data(spec, mean=[0.5], std=[0.25])
    assert data.test.inputs.shape == (3, 1, 2, 2)
    assert data.test.inputs.unique().tolist() == [2.0]
    assert data.test.targets.tolist() == [0, 1, 0]


def test_npz_features_and_indices(tmp_path: Path) -> None:
    both = {"train_features": np.ones((2, 3)), "train_labels": [0, 1]}
    data = load_data(save(tmp_path / "f.npz", **both, test_features=np.ones((1, 3)), test_labels=[1]))
    assert data.input_shape == (3,) and data.test.inputs.dtype == torch.float32
    words = load_data(save(tmp_path / "w.npz", inputs=np.array([[5, 300]]), targets=[1]))
    assert words.train is None and words.test.inputs.tolist() == [[5, 300]]
    assert words.test.inputs.dtype == torch.int64


def test_per_channel_normalisation(tmp_path: Path) -> None:
    spec = save(tmp_path / "d.npz", inputs=np.ones((1, 2, 2, 2), np.float32), targets=[0])
    data = load_data(spec, mean=[0.0, 1.0], std=[0.5, 4.0])
    assert data.test.inputs[0, :, 0, 0].tolist() == [2.0, 0.0]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "other names": ({"speed": np.ones(3)}, "holds speed"),
    "counts": ({"inputs": np.ones((3, 2)), "targets": [0, 1]}, "3 inputs and 2 labels"),
    "empty": ({"inputs": np.ones((0, 2)), "targets": np.zeros(0, int)}, "is empty"),
    "negative": ({"inputs": np.ones((2, 2)), "targets": [0, -1]}, "a label is -1"),
    "regression": ({"inputs": np.ones((1, 2)), "targets": [0.5]}, "not whole numbers"),
    "one hot": ({"inputs": np.ones((1, 2)), "targets": [[0, 1]]}, "one class number per sample|shape"),
    "nan": ({"inputs": [[np.nan]], "targets": [0]}, "NaN"),
    "text": ({"inputs": [["a"]], "targets": [0]}, "not made of arrays"),
    "shapes": (
        {
            "train_images": np.ones((1, 2, 2), np.uint8), "train_labels": [0],
            "test_images": np.ones((1, 3, 3), np.uint8), "test_labels": [0],
        },
        "training samples are 1x2x2, test samples 1x3x3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_archives(name: str, tmp_path: Path) -> None:
    arrays, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        load_data(save(tmp_path / "d.npz", **arrays))


@pytest.mark.parametrize("name", ["negative", "regression", "one hot"])
def test_targets_of_other_kinds_are_left_out_where_no_labels_are_needed(name: str, tmp_path: Path) -> None:
    arrays, message = WRONG[name]
    data = load_data(save(tmp_path / "d.npz", **arrays), labels=False)
    assert re.search(message, data.unlabelled) and not data.test.targets.any()
    assert len(data.test) == len(data.test.inputs) == len(arrays["inputs"])
    assert load_data("digits", labels=False).unlabelled == ""


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", inputs=np.array([{"a": 1}], dtype=object), targets=[0])
    with pytest.raises(InputError, match="not a readable"):
        load_data(f"npz:{tmp_path / 'd.npz'}")


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("digit", "no such data", "'digits'"),
        ("nppz:x.npz", "no such data", "'npz'"),
        ("npz:", "nothing after the colon", "npz:PATH"),
        ("npz:nowhere.npz", "no such file", "path"),
        ("folder:nowhere", "no such folder", "path"),
        ("torchvision:MNST", "no data set 'MNST'", "'MNIST'"),
        ("what", "no such data", "expected digits"),
        ("json:nothing", "no 'nothing'", "there are"),
        ("nowhere.py:load", "no such file", ""),
    ],
)
def test_unknown_sources(spec: str, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_data(spec)
    assert hint in caught.value.hint


def test_torchvision_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)) as caught:
        load_data(f"torchvision:FashionMNIST:{tmp_path}")
    assert "download=True" in caught.value.hint


def test_torchvision_reads_what_is_there(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels, labels = bytes(range(4)) * 2, bytes([3, 9])
    for part in ("train", "t10k"):
        images = struct.pack(">HBBIII", 0, 8, 3, 2, 2, 2) + pixels
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + labels)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    data = load_data(f"torchvision:mnist:{tmp_path}")
    assert data.test.targets.tolist() == [3, 9]
    torch.testing.assert_close(data.test.inputs[0] * 255, torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]))
    assert len(data.class_names) == 10 and data.class_names[9] == "9 - nine"


@pytest.mark.parametrize(
    ("path", "shift", "message"),
    [
        ([1.0, 2.0], None, "mean has 2 values, the data has 1 channel"),
        (None, [0.0], "std has to be above 0"),
    ],
)
def test_wrong_normalisation(path: Any, shift: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data("digits", mean=path, std=shift)


def picture(path: Path, size: tuple[int, int], colour: Any, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_folder_with_two_parts(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("val", 1)):
        for each in range(count):
            picture(tmp_path / part / "cat" / f"{each}.png", (4, 3), (255, 0, 0))
            picture(tmp_path / part / "dog" / f"{each}.png", (4, 3), (0, 0, 255))
    data = load_data(f"folder:{tmp_path}")
    assert data.train is not None and data.train.targets.tolist() == [0, 0, 1, 1]
    assert data.test.inputs.shape == (2, 3, 3, 4)
    assert data.test.inputs[:, :, 0, 0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert data.classes == 2 and data.class_names == ("cat", "dog")


def test_folder_of_classes_alone_in_grey_and_scaled(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", (20, 30), 51, "L")
    picture(tmp_path / "b" / "2.png", (9, 9), 102, "L")
    with pytest.raises(InputError, match="different sizes"):
        load_data(f"folder:{tmp_path}")
    data = load_data(f"folder:{tmp_path}", images=ImageShape(1, 8, 8))
    assert data.train is None and data.test.inputs.shape == (2, 1, 8, 8)
    torch.testing.assert_close(data.test.inputs[:, 0, 4, 4], torch.tensor([0.2, 0.4]))
    coloured = load_data(f"folder:{tmp_path}", images=ImageShape(3, 8, 8))
    assert coloured.test.inputs.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("sizes", "usual", "side"),
    [
        ([(6, 6), (6, 6)], True, 6),  # small ones of one size are what the network was trained on
        ([(6, 6), (7, 6)], True, 8),
        ([(9, 9), (9, 9)], True, 8),  # photographs
        ([(6, 6), (6, 6)], False, 8),
    ],
)
def test_a_size_that_is_only_usual(tmp_path: Path, sizes: Any, usual: bool, side: int) -> None:
    for number, size in enumerate(sizes):
        picture(tmp_path / "abc"[number] / "1.png", size, 255, "L")
    data = load_data(f"folder:{tmp_path}", images=ImageShape(3, 8, 8, usual))
    assert data.test.inputs.shape == (2, 3, side, side)
    assert bool((data.test.inputs == 1).all())


def test_pictures_with_a_palette_or_transparency(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", (12, 9), (255, 0, 0, 128), "RGBA")
    Image.new("RGB", (9, 12), (0, 0, 255)).quantize(4).save(tmp_path / "a" / "2.png")
    data = load_data(f"folder:{tmp_path}", images=ImageShape(3, 8, 8))
    assert data.test.inputs[:, :, 4, 4].tolist() == [[1, 0, 0], [0, 0, 1]]


class Pets:
    """A data set of torchvision that keeps no arrays: pictures, or tensors, of two sizes."""

    as_tensors = False
    reads = 0

    def __init__(self, root: str, split: str) -> None:
        self.sizes = ((9, 12), (12, 9), (9, 9))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        type(self).reads += 1
        width, height = self.sizes[index]
        return (torch.zeros(1, height, width) if self.as_tensors else Image.new("RGB", (width, height), "red")), index


def test_a_set_of_torchvision_with_pictures_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets, "Pets", Pets, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Pets"))
    monkeypatch.setattr(Pets, "reads", 0)
    data = load_data("torchvision:pets", images=ImageShape(3, 8, 8))
    assert data.test.inputs.shape == (3, 3, 8, 8) and data.test.targets.tolist() == [0, 1, 2]
    assert Pets.reads == 2 * (1 + 3)  # of two parts one to see what they are, and each once
    with pytest.raises(InputError, match="different sizes"):
        load_data("torchvision:pets")
    monkeypatch.setattr(Pets, "as_tensors", True)
    with pytest.raises(InputError, match="Pets: the images have different sizes"):
        load_data("torchvision:pets")


def test_too_many_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", (9, 9), 0, "L")
    with pytest.raises(InputError, match="1 image would not fit into memory"):
        load_data(f"folder:{tmp_path}", images=ImageShape(3, 60_000, 60_000))


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folders"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="no images"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a readable image"):
        load_data(f"folder:{tmp_path}")


FUNCTIONS = """
import numpy as np
x, y = np.ones((4, 3), np.float32), np.array([0, 1, 2, 1])
def four(): return x, y, x[:2], y[:2]
def two(): return x, y
def three(): return x, y, x
def fails(): raise KeyError("on purpose")
"""


def test_functions(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS, encoding="utf-8")
    data = load_data(f"{path}:four")
    assert data.train is not None
    assert (len(data.train), len(data.test), data.classes) == (4, 2, 3)
    assert load_data(f"{path}:two").train is None
    for name, message in (("three", "returned 3 values"), ("fails", "KeyError"), ("tow", "no 'tow'")):
        with pytest.raises(InputError, match=message):
            load_data(f"{path}:{name}")
