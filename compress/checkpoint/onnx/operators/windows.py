"""Where a window slides: kernel, strides, dilations and the padding on both sides of each dim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, Untranslatable


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial dims; ``before`` and ``after`` are the padding of each."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    @property
    def symmetric(self) -> bool:
        return self.before == self.after

    @property
    def padded(self) -> bool:
        return any(self.before) or any(self.after)


def window(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a convolution or pooling.

    Args:
        node: Its attributes.
        sizes: Spatial sizes of the input.
        kernel: Sizes of the kernel.
    """
    rank = len(kernel)
    if len(sizes) != rank:
        raise Untranslatable(f"its kernel has {rank} dims and its input has {len(sizes)} spatial ones")
    strides = list(node.get("strides") or [1] * rank)
    dilations = list(node.get("dilations") or [1] * rank)
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        return Window(list(kernel), strides, dilations, before, after)
    pads = list(node.get("pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
    return Window(list(kernel), strides, dilations, pads[:rank], pads[rank:])


def padded(x: Tensor, window: Window, value: float) -> Tensor:
    """The input with the padding written out; ``torch`` takes it from the last dim to the first."""
    pairs = [n for pair in zip(reversed(window.before), reversed(window.after), strict=True) for n in pair]
    return F.pad(x, pairs, value=value)
