"""The networks of Lee, "Differentiable Sparsification for Deep Neural Networks" (2019), for images of 32 x 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """BN, ReLU, 1 x 1 to four times the growth, BN, ReLU, 3 x 3 to the growth; its output is put behind its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat((x, self.conv2(functional.relu(self.norm2(y)))), 1)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al., CVPR 2017): three dense blocks, halved in width and size between them.

    Args:
        depth: Layers, 3 n + 4 with an even n.
        growth: Channels that each bottleneck adds.
        classes: Outputs.
    """

    def __init__(self, depth: int = 100, growth: int = 12, classes: int = 10) -> None:
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range((depth - 4) // 6):
                layers.append(Bottleneck(width, growth))
                width += growth
            if block < 2:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                width //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class MobileNet(nn.Module):
    """MobileNetV1 (Howard et al., 2017) with fewer strides, as for CIFAR.

    Args:
        width: Multiplier of all widths.
        classes: Outputs.
    """

    def __init__(self, width: float = 0.25, classes: int = 10) -> None:
        super().__init__()
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
        channels = int(32 * width)
        layers: list[nn.Module] = [*_convolution(3, channels, 3)]
        for outputs, stride in plan:
            outputs = int(outputs * width)
            layers += _convolution(channels, channels, 3, stride, channels)
            layers += _convolution(channels, outputs, 1)
            channels = outputs
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]
