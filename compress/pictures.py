"""Pictures of any size and mode as one array, of the shape that a network reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError
from compress.wording import plural

_MOST_BYTES = 8 << 30  # of images held in memory


@dataclass(frozen=True)
class ImageShape:
    """The images that a network reads.

    Attributes:
        channels, height, width: Of one image.
        usual: Nobody said the size, it is what such networks usually get: pictures that are all of one size, and not
            larger, are taken as they are.
    """

    channels: int
    height: int
    width: int
    usual: bool = False


def stacked(pictures: Callable[[], Iterable[Any]], count: int, where: str, shape: ImageShape | None) -> Tensor:
    """All pictures as (count, C, H, W), float32 from 0 to 1.

    Without a shape they become RGB, or grey where all are, and must be of one size. With one, the shorter side is
    scaled to 8/7 of the size and the middle cut out, as torchvision's classifiers were evaluated; those of the very
    size stay.

    Args:
        pictures: Gives them as PIL images, each time it is called.
        count: How many there are.
        where: Names their source in messages.
        shape: What the network reads.

    Raises:
        InputError: They differ in size and no shape is known, or do not fit into memory.
    """
    if shape is None or shape.usual:
        as_they_are = _alike(pictures(), count, where, shape)
        if as_they_are is not None:
            return as_they_are
    if shape is None:
        raise InputError(f"{where}: the images have different sizes", "say the model's --input-shape")
    return _tensor([_array(_fitted(each, shape), shape) for each in _held(pictures(), count, where, shape)])


def _alike(pictures: Iterable[Any], count: int, where: str, shape: ImageShape | None) -> Tensor | None:
    """Pictures that are all of one size; None where they are not, or larger than is usual."""
    arrays: list[np.ndarray] = []
    size = None
    for picture in _held(pictures, count, where, None):
        size = size or picture.size
        larger = shape is not None and (picture.width > shape.width or picture.height > shape.height)
        if picture.size != size or larger:
            return None
        arrays.append(_array(picture, shape))
    if len({each.ndim for each in arrays}) > 1:  # grey ones among coloured ones
        arrays = [np.repeat(each[..., None], 3, axis=2) if each.ndim == 2 else each for each in arrays]
    return _tensor(arrays)


def _held(pictures: Iterable[Any], count: int, where: str, shape: ImageShape | None) -> Iterable[Any]:
    """The pictures, as long as all of their size fit into memory."""
    for picture in pictures:
        pixels = picture.width * picture.height if shape is None else shape.width * shape.height
        if pixels * (1 if picture.mode == "L" else 3) * 4 * count > _MOST_BYTES:
            raise InputError(f"{where}: {plural(count, 'image')} would not fit into memory", "give fewer of them")
        yield picture


def _array(picture: Any, shape: ImageShape | None) -> np.ndarray:
    """(H, W) of a grey picture, (H, W, 3) of any other; with a shape of 1 or 3 channels as that says."""
    mode = {1: "L", 3: "RGB"}.get(shape.channels) if shape is not None else None
    if mode is None:
        mode = "L" if picture.mode == "L" else "RGB"
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def _fitted(picture: Any, shape: ImageShape) -> Any:
    from PIL import Image

    height, width = shape.height, shape.width
    if (picture.height, picture.width) == (height, width):
        return picture
    if picture.mode not in ("L", "RGB"):  # a palette cannot be scaled
        picture = picture.convert("RGB")
    scale = max(height / picture.height, width / picture.width) * 8 / 7
    size = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _tensor(arrays: list[np.ndarray]) -> Tensor:
    together = torch.from_numpy(np.stack(arrays))
    together = together[:, None] if together.dim() == 3 else together.permute(0, 3, 1, 2).contiguous()
    return together.float().div_(255)
