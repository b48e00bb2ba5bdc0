"""Labelled data for calibration, training and evaluation, from a word on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from compress import datasets
from compress.errors import InputError
from compress.pictures import ImageShape
from compress.registry.words import did_you_mean
from compress.wording import plural

_EXPECTED = "digits, npz:PATH, folder:PATH, torchvision:NAME[:ROOT], package.module:function or file.py:function"
CLASSES_NEEDED = (
    "accuracy and training need one class number per sample, (N,), from 0; `compress prune` without --epochs refits "
    "layers to any data"
)


@dataclass(frozen=True)
class Split:
    """Samples with their classes: `inputs` (N, ...) and `targets` (N,), class numbers from 0 (int64)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def fit_to(self, input_shape: Sequence[int]) -> Split:
        """The same samples in the shape a model takes (without the batch), where the number of values agrees.

        Images are turned around where the model takes (H, W, C).

        Raises:
            InputError: The values per sample differ in number; names both shapes.
        """
        wanted, here = tuple(input_shape), tuple(self.inputs.shape[1:])
        if wanted == here:
            return self
        if len(here) == 3 and wanted == (*here[1:], here[0]):  # a model that takes the channels last
            return replace(self, inputs=self.inputs.permute(0, 2, 3, 1).contiguous())
        # Flattening and singleton dimensions change nothing; a transposed image would be another one.
        alike = [n for n in wanted if n > 1] == [n for n in here if n > 1] or 1 in (len(wanted), len(here))
        if prod(wanted) != prod(here) or not alike:
            raise InputError(
                f"the data has {_samples(here)} of {_times(here)}, the model takes {_times(wanted)}",
                "use the data that the model was trained on, or say the model's --input-shape",
            )
        return replace(self, inputs=self.inputs.reshape(len(self), *wanted))


@dataclass(frozen=True)
class Data:
    """A data set: `train` (None where there is none), `test`, the number of classes in both, and their names if any.

    `unlabelled` says why there are no classes, "" where there are some; all targets are 0 then.
    """

    name: str
    train: Split | None
    test: Split
    classes: int
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.test.inputs.shape[1:])

    def fit_to(self, input_shape: Sequence[int]) -> Data:
        """Both splits in the shape a model takes; see `Split.fit_to`."""
        train = None if self.train is None else self.train.fit_to(input_shape)
        return replace(self, train=train, test=self.test.fit_to(input_shape))


def load_data(
    spec: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    images: ImageShape | None = None,
    labels: bool = True,
) -> Data:
    """The data that `spec` names; nothing is downloaded.

    Images become float32 (N, C, H, W) with values from 0 to 1, then ``(x - mean) / std`` per channel.

    Args:
        spec: ``digits`` (1,437 and 360 images of 8 x 8, from scikit-learn), ``npz:PATH``, ``folder:PATH``,
            ``torchvision:NAME[:ROOT]``, ``package.module:function`` or ``file.py:function``. A function
            returns (train inputs, train targets, test inputs, test targets) or the last two alone.
        mean: Per channel, or one value for all.
        std: Likewise.
        images: What the network reads, to which the images of folders and data sets of any size are scaled and cut.
        labels: Whether targets have to be class numbers; others, such as those of a regression, are left out where not.

    Raises:
        InputError: The source is not known or not there, or what it gives is no labelled data.
    """
    kind, _, rest = spec.partition(":")
    source = datasets.SOURCES.get(kind)
    if spec == "digits":
        raw = datasets.digits()
    elif source is not None:
        if not rest:
            raise InputError(f"--data {spec}: nothing after the colon", f"expected {_EXPECTED}")
        raw = source(rest, images)
    else:
        raw = _from_function(spec, kind)
    return _checked(spec, raw, mean, std, labels)


def _from_function(spec: str, kind: str) -> datasets.Raw:
    near = did_you_mean(kind, ["digits", *datasets.SOURCES])
    if ":" not in spec:
        raise InputError(f"--data {spec}: there is no such data", near or f"expected {_EXPECTED}")
    try:
        return datasets.function(spec)
    except InputError as error:
        if near and "no module named" in str(error):
            raise InputError(f"--data {spec}: there is no such data", near) from error
        raise


def _checked(
    name: str, raw: datasets.Raw, mean: Sequence[float] | None, std: Sequence[float] | None, labels: bool
) -> Data:
    train, problem = (None, "") if raw.train is None else _split(f"the training part of {name}", raw.train, labels)
    test, other = _split(f"the test part of {name}", raw.test, labels)
    if train is not None and train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(
            f"{name}: training samples are {_times(tuple(train.inputs.shape[1:]))}, "
            f"test samples {_times(tuple(test.inputs.shape[1:]))}"
        )
    classes = 1 + max(int(each.targets.max()) for each in (train, test) if each is not None)
    if raw.classes is not None and classes > raw.classes:
        raise InputError(f"{name}: a label is {classes - 1}, and classes go from 0 to {raw.classes - 1}")
    train = None if train is None else _normalised(train, mean, std)
    return Data(name, train, _normalised(test, mean, std), raw.classes or classes, raw.names, problem or other)


def _split(what: str, arrays: datasets.Pair, labels: bool) -> tuple[Split, str]:
    """The samples of one part, and why they have no classes; "" if they have. Raises InputError where they must."""
    inputs, targets = _tensors(what, *arrays)
    problem = _no_classes(what, inputs, targets)
    if problem and labels:
        raise InputError(problem, CLASSES_NEEDED)
    numbers = torch.zeros(len(inputs)) if problem else targets.reshape(len(targets))
    return Split(_inputs(what, inputs), numbers.to(torch.int64)), problem


def _tensors(what: str, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of as many samples."""
    try:
        x, y = torch.as_tensor(inputs), torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is not made of arrays: {error}") from error
    if x.dim() < 2 or not y.dim():
        shapes = f"inputs have shape {tuple(x.shape)} and targets {tuple(y.shape)}"
        raise InputError(f"{what}: {shapes}", "expected inputs (N, ...) and one class number per sample, (N,)")
    if len(x) != len(y):
        raise InputError(f"{what} has {plural(len(x), 'input')} and {plural(len(y), 'label')}")
    if not len(y):
        raise InputError(f"{what} is empty")
    return x, y


def _no_classes(what: str, inputs: Tensor, targets: Tensor) -> str:
    """Why targets are no class numbers; "" if they are."""
    if targets.dim() != 1 and targets.shape[1:] != (1,):
        return f"{what}: inputs have shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}"
    if targets.is_floating_point() and not bool((targets == targets.round()).all()):
        return f"{what}: targets are not whole numbers"
    return f"{what}: a label is {int(targets.min())}, classes are numbered from 0" if int(targets.min()) < 0 else ""


def _inputs(what: str, x: Tensor) -> Tensor:
    x = x.to(torch.float32) if x.is_floating_point() or x.dtype in (torch.uint8, torch.bool) else x
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise InputError(f"{what}: inputs hold NaN or infinite values")
    return x


def _normalised(split: Split, mean: Sequence[float] | None, std: Sequence[float] | None) -> Split:
    if mean is None and std is None:
        return split
    channels = split.inputs.shape[1]
    if not split.inputs.is_floating_point():
        raise InputError("mean and std need inputs that are numbers, these are indices")
    shift = _per_channel("mean", mean, 0.0, channels)
    scale = _per_channel("std", std, 1.0, channels)
    if bool((scale <= 0).any()):
        raise InputError(f"std has to be above 0, got {list(std or ())}")
    shape = (1, -1, *[1] * (split.inputs.dim() - 2))
    return replace(split, inputs=(split.inputs - shift.reshape(shape)) / scale.reshape(shape))


def _per_channel(name: str, values: Sequence[float] | None, default: float, channels: int) -> Tensor:
    numbers = [default] if values is None else list(values)
    if len(numbers) not in (1, channels):
        raise InputError(f"{name} has {plural(len(numbers), 'value')}, the data has {plural(channels, 'channel')}")
    return torch.tensor(numbers, dtype=torch.float32)


def _samples(shape: tuple[int, ...]) -> str:
    return "images" if len(shape) == 3 else "samples"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
