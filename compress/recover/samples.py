"""Which samples are trained on when, and what is done to them: decided by the seed alone, not by who runs them.

Every process knows the whole order of an epoch and takes its share of each batch, and what happens to an image at
random depends on its own number. So one process and many see the same batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from compress.data import Split
from compress.errors import InputError
from compress.wording import plural

_PART_SEED = 0  # of the validation part: always the same samples, whatever the seed of the run


def stream(seed: int, *what: object) -> int:
    """A seed of its own for every purpose."""
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def divided(split: Split, share: float) -> tuple[Split, Split]:
    """Samples to train on and samples to choose the best epoch by; always the same for the same data.

    Raises:
        InputError: There are fewer than two samples.
    """
    if len(split) < 2:
        raise InputError("there is 1 training sample, and one has to be kept out", "give more training data")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(_PART_SEED))
    kept_out = min(max(1, round(share * len(split))), len(split) - 1)
    validation, train = order[:kept_out].sort().values, order[kept_out:].sort().values
    return tuple(Split(split.inputs[i], split.targets[i]) for i in (train, validation))  # type: ignore[return-value]


def batch_count(samples: int, size: int) -> int:
    """Steps of an epoch."""
    return math.ceil(samples / size)


def batches(samples: int, size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The numbers of the samples of every batch of an epoch, in a new order each time.

    Batches are as equal as can be, none above ``size``: no small rest is left to a last batch.
    """
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(stream(seed, "order", epoch)))
    return torch.tensor_split(order, batch_count(samples, size))


def share(batch: Tensor, process: int, processes: int, parts: int) -> tuple[Tensor, ...]:
    """The samples of a batch that a process runs, in as many parts as asked; what a part holds is up to no process."""
    return tuple(part[process::processes] for part in torch.tensor_split(batch, parts))


def check_share(samples: int, size: int, processes: int, parts: int) -> None:
    """See that no process or part goes without samples.

    Raises:
        InputError: One would.
    """
    smallest = samples // batch_count(samples, size)
    if smallest < processes * parts:
        raise InputError(
            f"batches of {plural(smallest, 'sample')} cannot be divided over {processes} processes in {parts} parts",
            "a larger --batch-size, a smaller --accumulate, or fewer processes",
        )


class Augmentation:
    """Images moved and mirrored at random, each in its own way.

    Args:
        kind: "none", "flip", "crop", "crop-flip", or "auto": crop and flip for images with colours, nothing for
            others, as a mirrored letter is another one.
        shape: Of a sample.
        seed: Of the run.

    Raises:
        InputError: The samples are no images.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], seed: int) -> None:
        image = len(shape) == 3 and min(shape[1:]) >= 4
        if kind == "auto":
            kind = "crop-flip" if image and shape[0] == 3 else "none"
        if kind != "none" and not image:
            raise InputError(
                f"--augment {kind} is for images, the samples are {'x'.join(map(str, shape))}", "--augment none"
            )
        self.kind, self.seed = kind, seed
        self._change = _transform(kind, shape)

    def __call__(self, inputs: Tensor, numbers: Tensor, epoch: int) -> Tensor:
        """Changed copies of images (N, C, H, W); ``numbers`` says which samples they are, (N,)."""
        if self._change is None:
            return inputs
        made = []
        with torch.random.fork_rng(devices=[]):
            for image, number in zip(inputs, numbers.tolist(), strict=True):
                torch.default_generator.manual_seed(stream(self.seed, "augment", epoch, number))
                made.append(self._change(image))
        return torch.stack(made)


def _transform(kind: str, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor] | None:
    if kind == "none":
        return None
    from torchvision.transforms import v2

    crop = v2.RandomCrop(shape[1:], padding=[max(1, shape[2] // 8), max(1, shape[1] // 8)])  # left and right, then top
    steps = {"crop": [crop], "flip": [v2.RandomHorizontalFlip()], "crop-flip": [crop, v2.RandomHorizontalFlip()]}
    change: Callable[[Tensor], Tensor] = v2.Compose(steps[kind])
    return change
