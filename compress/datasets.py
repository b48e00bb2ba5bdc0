"""Where labelled data comes from: scikit-learn, archives, folders of images, torchvision, or a function."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint.userfile import call_user, load_callable, near_or_some
from compress.errors import InputError
from compress.pictures import ImageShape, stacked
from compress.wording import plural

Pair = tuple[Any, Any]
Shape = ImageShape | None  # of the images that the network reads

_INPUTS, _TARGETS = ("images", "features", "inputs", "x"), ("labels", "targets", "y")
_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Raw:
    """Inputs and targets as a source gives them, not yet checked; `classes` and their names where it knows them."""

    train: Pair | None
    test: Pair
    classes: int | None = None
    names: tuple[str, ...] = ()


def digits() -> Raw:
    """1,797 handwritten digits, 8 x 8, from 0 to 1; always the same 360, stratified, are for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy((bunch.images / 16).astype(np.float32))[:, None]
    targets = torch.from_numpy(bunch.target)
    train, test = train_test_split(
        np.arange(len(targets)), test_size=360, random_state=0, stratify=bunch.target
    )
    return Raw((images[train], targets[train]), (images[test], targets[test]), 10)


def npz(path: str, shape: Shape = None) -> Raw:
    """An archive with train_images, train_labels, test_images, test_labels (or features, inputs, x_train).

    Images of 8 bits (N x H x W, with channels last or first) are divided by 255; other numbers stay.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(f"{path} is a single array", "save inputs and labels with numpy.savez")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path after npz:") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npz archive: {error}") from error
    train, test = _pair(arrays, "train"), _pair(arrays, "test") or _pair(arrays, "")
    if test is None:
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}",
            "expected train_images, train_labels, test_images, test_labels "
            "(or test_features, or inputs and targets alone)",
        )
    return Raw(None if train is None else _scaled(train), _scaled(test))


def folder(path: str, shape: Shape = None) -> Raw:
    """Images in one folder per class, below train/ and test/ (or val/), or alone as test images.

    They are made to fit `shape`, see :func:`compress.pictures.stacked`.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"no such folder: {path}", "check the path after folder:")
    test_root = next((root / n for n in ("test", "val", "valid", "validation") if (root / n).is_dir()), root)
    train_root = root / "train"
    names = _class_names(train_root if train_root.is_dir() else test_root)
    if test_root is root and train_root.is_dir():
        raise InputError(f"{path} has train/ but neither test/ nor val/", "add a folder of held-out images")
    unknown = sorted(set(_class_names(test_root)) - set(names))
    if unknown:
        raise InputError(f"{test_root} has classes that {train_root} has not: {', '.join(unknown[:5])}")
    train = _images(train_root, names, shape) if train_root.is_dir() else None
    return Raw(train, _images(test_root, names, shape), len(names), tuple(names))


def torchvision_set(spec: str, shape: Shape = None) -> Raw:
    """A data set of torchvision that is already on disk, ``NAME`` or ``NAME:ROOT`` (ROOT is ``data``)."""
    from torchvision import datasets

    name, _, root = spec.partition(":")
    where = Path(root or "data")
    known = {each.lower(): each for each in datasets.__all__ if inspect.isclass(getattr(datasets, each))}
    if name.lower() not in known:
        raise InputError(f"torchvision has no data set {name!r}", near_or_some(name, known.values()))
    dataset = getattr(datasets, known[name.lower()])
    options = inspect.signature(dataset).parameters
    if "train" in options:
        arguments: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
    elif "split" in options:
        arguments = ({"split": "train"}, {"split": "test"})
    else:
        raise InputError(
            f"torchvision:{name} has no training and test part", "write a function that splits it"
        )
    if "download" in options:
        arguments = tuple({**each, "download": False} for each in arguments)
    try:
        parts = [dataset(str(where), **each) for each in arguments]
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"torchvision:{name} is not in {where.resolve()}: {str(error).splitlines()[0]}",
            f"nothing is downloaded here. Fetch it once with torchvision.datasets.{dataset.__name__}"
            f"({str(where)!r}, download=True), or name its folder: torchvision:{name}:ROOT",
        ) from error
    return Raw(_of_dataset(parts[0], shape), _of_dataset(parts[1], shape), names=_names_of(parts[0]))


def function(reference: str) -> Raw:
    """What the function that the user names returns: four arrays, or two for testing alone."""
    result = call_user(load_callable(reference, flag="--data"), what=f"--data {reference}")
    if isinstance(result, (tuple, list)) and len(result) == 4:
        return Raw((result[0], result[1]), (result[2], result[3]))
    if isinstance(result, (tuple, list)) and len(result) == 2:
        return Raw(None, (result[0], result[1]))
    got = plural(len(result), "value") if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
    raise InputError(
        f"--data {reference} returned {got}",
        "it has to return (train inputs, train targets, test inputs, test targets), or the last two",
    )


SOURCES: dict[str, Callable[[str, Shape], Raw]] = {
    "npz": npz, "folder": folder, "torchvision": torchvision_set,
}  # fmt: skip


def _pair(arrays: dict[str, Any], part: str) -> Pair | None:
    def named(words: tuple[str, ...]) -> Any:
        names = [name for word in words for name in (f"{part}_{word}", f"{word}_{part}")] if part else words
        return next((arrays[name] for name in names if name in arrays), None)

    inputs, targets = named(_INPUTS), named(_TARGETS)
    return None if inputs is None or targets is None else (inputs, targets)


def _scaled(pair: Pair) -> Pair:
    inputs = np.asarray(pair[0])
    images = inputs.dtype == np.uint8 and inputs.ndim >= 3
    if inputs.dtype.kind == "f" or inputs.dtype in (np.uint8, np.bool_):
        inputs = inputs.astype(np.float32)
    if images:
        inputs /= np.float32(255)
    if inputs.ndim == 3 and images:
        inputs = inputs[:, None]
    elif inputs.ndim == 4 and inputs.shape[3] in (1, 3, 4) and inputs.shape[1] not in (1, 3):
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    targets = np.asarray(pair[1])
    return inputs, targets.astype(np.int64) if targets.dtype.kind in "ui" else targets


def _class_names(root: Path) -> list[str]:
    names = sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not names:
        raise InputError(
            f"--data folder: {root} has no folders in it", "expected train/ and test/, each with one folder per class"
        )
    return names


def _images(root: Path, names: list[str], shape: Shape) -> tuple[Tensor, Tensor]:
    files = [
        (each, index)
        for index, name in enumerate(names)
        for each in sorted((root / name).rglob("*"))
        if each.suffix.lower() in _IMAGES
    ]
    if not files:
        raise InputError(f"{root} has no images in its class folders", f"looked for {' '.join(_IMAGES)}")
    images = stacked(lambda: _opened(each for each, _ in files), len(files), str(root), shape)
    return images, torch.tensor([index for _, index in files])


def _opened(files: Iterable[Path]) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    for each in files:
        try:
            with Image.open(each) as image:
                image.load()
                yield image
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{each} is not a readable image: {error}") from error


def _names_of(dataset: Any) -> tuple[str, ...]:
    """The names of a torchvision data set's classes, none where it has no list of them."""
    names = getattr(dataset, "classes", None)
    # Of ImageNet every class has a tuple of names
    return tuple(str(each[0] if isinstance(each, tuple) and each else each) for each in names or ())


def _of_dataset(dataset: Any, shape: Shape) -> Pair:
    """All samples of a torchvision data set: from its arrays where it keeps them, else one by one."""
    data, targets = getattr(dataset, "data", None), getattr(dataset, "targets", None)
    if isinstance(data, (np.ndarray, Tensor)) and targets is not None:
        return _scaled((np.asarray(data), np.asarray(targets)))
    from PIL import Image

    count, name = len(dataset), type(dataset).__name__
    labels: list[Any] = []

    def pictures() -> Iterator[Any]:
        labels.clear()
        for picture, label in (dataset[index] for index in range(count)):
            labels.append(label)
            yield picture

    if count and isinstance(dataset[0][0], Image.Image):
        return stacked(pictures, count, f"torchvision's {name}", shape), np.asarray(labels)
    arrays = [np.asarray(image) for image in pictures()]
    if len({each.shape for each in arrays}) > 1:
        raise InputError(
            f"{name}: the images have different sizes", "write a function that makes them equal: file.py:function"
        )
    return _scaled((np.stack(arrays), np.asarray(labels)))
