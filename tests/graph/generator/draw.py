"""What constructs of random networks are made with: examples of tensors, dice, and steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

Kind = Literal["image", "tokens", "vector"]
T = TypeVar("T")

# Numbers in one sample of a tensor; keeps networks small enough to draw thousands.
LARGEST = 6000


class Step(nn.Module):
    """``forward(self, *inputs)`` given as a function, its layers, parameters and buffers by name."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Example:
    """A tensor of the network while it is drawn.

    Attributes:
        tensor: Its value for the example inputs; the first dim is the batch.
        kind: image - (N, C, one to three spatial dims), tokens - (N, T, C), vector - (N, C).
        owned: Whether an operation made it, so that it may be changed in place.
    """

    tensor: Tensor
    kind: Kind
    owned: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def rank(self) -> int:
        return self.tensor.dim()

    @property
    def axis(self) -> int:
        """The dim of the channels."""
        return self.rank - 1 if self.kind == "tokens" else 1

    @property
    def c(self) -> int:
        return self.shape[self.axis]

    @property
    def space(self) -> tuple[int, ...]:
        """Sizes of the spatial dims of an image."""
        return self.shape[2:]

    @property
    def places(self) -> tuple[int, ...]:
        """The dims that are neither batch nor channels."""
        return tuple(d for d in range(1, self.rank) if d != self.axis)


class Draw:
    """Dice of one network."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = torch.Generator().manual_seed(seed)

    def pick(self, *options: T) -> T:
        return self.random.choice(options)

    def chance(self, p: float = 0.5) -> bool:
        return self.random.random() < p

    def width(self, multiple: int = 1) -> int:
        """A number of channels, divisible by ``multiple``."""
        return multiple * max(1, round(self.pick(3, 4, 5, 6, 8, 8, 10, 12, 16) / multiple))

    def divisor(self, n: int, least: int = 2) -> int | None:
        """A divisor of ``n`` that is neither below ``least`` nor ``n`` itself."""
        found = [k for k in range(least, n) if n % k == 0]
        return self.pick(*found) if found else None

    def subset(self, n: int) -> list[int]:
        """Some of the indices below ``n``, in any order."""
        return self.random.sample(range(n), self.random.randint(1, n))

    def order(self, n: int) -> list[int]:
        return self.random.sample(range(n), n)

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return self.random.sample(options, len(options))

    def tensor(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.numbers)

    def parameter(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(self.tensor(*shape))

    def activation(self) -> Callable[[Tensor], Tensor]:
        functional = torch.nn.functional
        return self.pick(
            torch.relu, functional.gelu, functional.silu, torch.tanh, functional.leaky_relu, functional.hardswish,
            functional.elu, torch.sigmoid, functional.mish, functional.relu6, functional.softplus,
        )  # fmt: skip

    def fits(self, x: Example, factor: float) -> bool:
        """Whether a tensor ``factor`` times as large as ``x`` is still small enough."""
        return x.tensor[0].numel() * factor <= LARGEST

    def randomise(self, module: nn.Module) -> None:
        """Every parameter and running statistic at random: zeros and ones would hide mistakes."""
        tensors = [*module.parameters(), *(b for n, b in module.named_buffers() if "running_" in n)]
        with torch.no_grad():
            for tensor in tensors:
                if tensor.squeeze().dim() <= 1:
                    tensor.copy_(torch.rand(tensor.shape, generator=self.numbers) + 0.5)
                else:
                    scale = math.sqrt(tensor.numel() / max(tensor.shape[:2]))
                    tensor.copy_(torch.randn(tensor.shape, generator=self.numbers) / max(scale, 1.0))


def conv(n: int, inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Module:
    """A convolution over ``n`` dims that keeps sizes at stride 1."""
    options.setdefault("padding", (size - 1) * options.get("dilation", 1) // 2)
    layer: nn.Module = getattr(nn, f"Conv{n}d")(inputs, outputs, size, **options)
    return layer


def dense(x: Example, outputs: int, bias: bool = True, inputs: int | None = None) -> nn.Module:
    """A layer over the channels alone: 1 x 1 convolution for images, linear for the others."""
    inputs = x.c if inputs is None else inputs
    if x.kind == "image":
        return conv(len(x.space), inputs, outputs, 1, bias=bias)
    return nn.Linear(inputs, outputs, bias=bias)


Build = Callable[..., Step | None]


@dataclass(frozen=True)
class Construct:
    """Something that networks are made of.

    Attributes:
        takes: Kinds of its inputs; any - image, tokens or vector.
        gives: Kind of its result; "" - that of the first input.
        build: From dice and examples of the inputs to a step, or None where it does not fit them.
        changes: Whether it changes its input in place.
    """

    name: str
    takes: tuple[str, ...]
    gives: str
    build: Build
    changes: bool


CONSTRUCTS: dict[str, Construct] = {}


def construct(*takes: str, gives: str = "", changes: bool = False) -> Callable[[Build], Build]:
    """Register a construct under the name of its function."""

    def add(build: Build) -> Build:
        name = build.__name__
        if name in CONSTRUCTS:
            raise ValueError(f"two constructs are called {name}")
        CONSTRUCTS[name] = Construct(name, takes, gives, build, changes)
        return build

    return add
