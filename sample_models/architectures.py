"""The networks behind the sample checkpoints, for greyscale images of 8 x 8 pixels.

Each factory takes widths as keywords and returns a new, untrained `nn.Module` that maps a float32 batch
of shape (N, 1, 8, 8), values in [0, 1], to logits of shape (N, num_classes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to a shortcut (He et al., 2016, arXiv:1512.03385).

    The shortcut is the identity where shapes allow it and a 1 x 1 convolution with batch norm where not.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResidualCNN(nn.Module):
    """A stem and one stage of two residual blocks per width; every stage after the first halves the image."""

    def __init__(self, widths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            blocks.append(ResidualBlock(inputs, width, stride=1 if stage == 0 else 2))
            blocks.append(ResidualBlock(width, width))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.stem(x))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channel means (Hu et al., 2018, arXiv:1709.01507)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, hidden, 1)
        self.expand = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.expand(gate))


class MobileBlock(nn.Module):
    """Expand, depthwise 3 x 3, squeeze-excite, project, with hard-swish (MobileNetV3, arXiv:1905.02244).

    The input is added to the output where both have the same shape.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
        )
        self.gate = SqueezeExcite(hidden, hidden // 4)
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileCNN(nn.Module):
    """A stem, two mobile blocks per width (the second one residual), a 1 x 1 convolution and a classifier."""

    def __init__(self, widths: tuple[int, ...], expansion: int, features: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.Hardswish()
        )
        blocks: list[nn.Module] = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            blocks.append(MobileBlock(inputs, width, expansion, stride=1 if stage == 0 else 2))
            blocks.append(MobileBlock(width, width, expansion))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.features = nn.Sequential(
            nn.Conv2d(inputs, features, 1, bias=False), nn.BatchNorm2d(features), nn.Hardswish()
        )
        self.head = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(self.blocks(self.stem(x)))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Attention(nn.Module):
    """Multi-head self-attention with query, key and value packed in one linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        # (batch, tokens, 3, heads, head size) -> three of (batch, heads, tokens, head size)
        packed = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = packed.unbind(0)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches of 2 x 2 pixels, a class token and learned positions (Dosovitskiy et al., arXiv:2010.11929)."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        # 4 x 4 patches and the class token. Larger than the usual 0.02: few images teach positions slowly.
        self.positions = nn.Parameter(0.3 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.class_token.expand(patches.shape[0], -1, -1)
        y = self.blocks(torch.cat((token, patches), dim=1) + self.positions)
        return self.head(self.norm(y[:, 0]))


def residual_cnn(*, widths: tuple[int, ...] = (32, 64), num_classes: int = 10) -> nn.Module:
    """A residual CNN with batch norm; `widths` are the channels of its stages."""
    return ResidualCNN(tuple(widths), num_classes)


def mobile_cnn(
    *,
    widths: tuple[int, ...] = (24, 48),
    expansion: int = 4,
    features: int = 192,
    num_classes: int = 10,
) -> nn.Module:
    """A depthwise-separable CNN with squeeze-excite and hard-swish.

    `widths` are the channels between blocks, `expansion` the factor by which a block widens them inside,
    and `features` the channels that the classifier reads.
    """
    return MobileCNN(tuple(widths), expansion, features, num_classes)


def vit(
    *, width: int = 64, depth: int = 2, heads: int = 4, hidden: int = 256, num_classes: int = 10
) -> nn.Module:
    """A small vision transformer; `width` has to be a multiple of `heads`.

    Raises ValueError where it is not.
    """
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    return VisionTransformer(width, depth, heads, hidden, num_classes)
