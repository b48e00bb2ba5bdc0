"""A random network: inputs, a graph of steps, and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.generator.draw import CONSTRUCTS, Construct, Draw, Example, Kind, Step, conv

Sources = tuple[int, ...]


class Wired(nn.Module):
    """Steps in order, each with the numbers of the tensors that it reads; inputs are numbered first."""

    def __init__(self, steps: Sequence[Step], sources: Sequence[Sources], outputs: Sequence[int], form: str) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.sources = tuple(sources)
        self.outputs = tuple(outputs)
        self.form = form

    def forward(self, *inputs: Tensor) -> Any:
        values: list[Tensor] = list(inputs)
        for step, sources in zip(self.steps, self.sources, strict=True):
            values.append(step(*(values[i] for i in sources)))
        found = [values[i] for i in self.outputs]
        if len(found) == 1:
            return found[0]
        if self.form == "sum" and len({y.shape for y in found}) == 1:
            return torch.stack(found).sum(0)
        return {f"head{i}": y for i, y in enumerate(found)} if self.form == "dict" else tuple(found)


@dataclass(frozen=True)
class Network:
    """A drawn network.

    Attributes:
        module: In eval mode, float32, every parameter random.
        inputs: Examples with a batch of two.
        recipe: Names of the constructs, in order.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    recipe: tuple[str, ...]

    def more(self, batch: int) -> tuple[Tensor, ...]:
        """The example inputs, repeated to another batch."""
        return tuple(torch.cat([x] * batch)[:batch] for x in self.inputs)


def draw_network(seed: int, size: int | None = None, only: str | None = None) -> Network:
    """The network of a seed; the same seed always gives the same network.

    Args:
        seed: Any integer.
        size: Number of constructs between the inputs and the outputs; drawn when absent. A smaller size gives the
            beginning of the same network.
        only: Use this construct alone, between layers that could shrink.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return _Drawing(Draw(seed)).network(size, only)


class _Drawing:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.inputs: list[Tensor] = []
        self.pool: list[Example] = []
        self.steps: list[Step] = []
        self.sources: list[Sources] = []
        self.recipe: list[str] = []
        self.embedding: nn.Embedding | None = None
        self.open: list[int] = []  # stems and results, the first of which no step reads yet

    def network(self, size: int | None, only: str | None) -> Network:
        drawn = self.draw.random.randint(2, 9)
        self._inputs(self.draw.pick(1, 1, 1, 2), only)
        for _ in range(drawn if size is None else size):
            self._step(list(CONSTRUCTS.values()) if only is None else [CONSTRUCTS[only]], only is not None)
        outputs = self._heads() + ([self._any()] if self.draw.chance(0.1) and only is None else [])
        form = self.draw.pick("tuple", "dict", "sum", "sum")
        module = Wired(self.steps, self.sources, outputs, form).eval()
        return Network(module, tuple(self.inputs), tuple(self.recipe))

    def _inputs(self, count: int, only: str | None) -> None:
        """All inputs come first, then a layer on each: what meets an input directly keeps its size."""
        kinds = [self.draw.pick("image", "image", "image", "tokens", "ids", "vector", "patches") for _ in range(count)]
        if only is not None:
            kinds = self._wanted(CONSTRUCTS[only])
        shapes = [self._input(kind) for kind in kinds]
        if only is not None and len(set(kinds)) == 1:
            shapes = [shapes[0], *(torch.flip(shapes[0], [0]) for _ in shapes[1:])]
        self.inputs = shapes
        self.pool = [Example(x, "vector", owned=False) for x in shapes]
        for i, kind in enumerate(kinds):
            self._add(*self._stem(kind, shapes[i]), (i,))

    def _wanted(self, construct: Construct) -> list[str]:
        kind = self.draw.pick("image", "tokens", "vector")
        return [kind if wanted == "any" else wanted for wanted in construct.takes]

    def _input(self, kind: str) -> Tensor:
        d = self.draw
        if kind == "ids":
            return torch.randint(9, (2, d.pick(4, 6)), generator=d.numbers)
        if kind == "image":
            dims = d.pick(1, 2, 2, 2, 2, 3)
            sizes = {1: (8, 6), 2: (6, 8, 4), 3: (4, 2)}[dims]
            return d.tensor(2, d.pick(1, 3), *(d.pick(*sizes) for _ in range(dims)))
        if kind == "patches":
            return d.tensor(2, 3, 8, 8)
        return d.tensor(2, d.pick(4, 6), 5) if kind == "tokens" else d.tensor(2, 5)

    def _stem(self, kind: str, x: Tensor) -> tuple[str, Step, Kind]:
        d = self.draw
        if kind == "ids":
            self.embedding = nn.Embedding(9, d.width(2))
            return "embedding", Step(lambda m, i: m.e(i), e=self.embedding), "tokens"
        if kind == "image":
            a = conv(x.dim() - 2, x.shape[1], d.width(2))
            if d.chance(0.3):  # inputs normalised by constants of their channels
                shape = (x.shape[1], *(1,) * (x.dim() - 2))
                mean, gain = d.tensor(*shape), d.parameter(*shape)
                return "stem", Step(lambda m, y: m.a((y - m.mean) * m.gain), a=a, mean=mean, gain=gain), "image"
            return "stem", Step(lambda m, y: m.a(y), a=a), "image"
        if kind == "patches":
            layer = nn.Conv2d(3, d.width(2), 4, 4)
            return "patches", Step(lambda m, y: m.a(y).flatten(2).transpose(1, 2), a=layer), "tokens"
        return "stem", Step(lambda m, y: m.a(y), a=nn.Linear(5, d.width(2))), "tokens" if kind == "tokens" else "vector"

    def _add(self, name: str, step: Step, kind: Kind, sources: Sources) -> None:
        self.draw.randomise(step)
        result = step.eval()(*(self.pool[i].tensor for i in sources))
        self.open = [i for i in self.open if i not in sources] + [len(self.pool)]
        self.pool.append(Example(result, kind))
        self.steps.append(step)
        self.sources.append(sources)
        self.recipe.append(name)

    def _step(self, constructs: list[Construct], latest: bool) -> None:
        d = self.draw
        first = len(self.pool) - 1 if d.chance(0.7) or latest else self._any()
        if latest:
            first = len(self.inputs)
        for construct in d.shuffled(constructs):
            sources = (first, *((first + 1 if latest else self._any()) for _ in construct.takes[1:]))
            examples = [self.pool[i] for i in sources]
            fitting = all(kind in ("any", x.kind) for kind, x in zip(construct.takes, examples, strict=True))
            if not fitting or (construct.changes and not self._changeable(sources[0])):
                continue
            step = construct.build(d, *examples)
            if step is None:
                continue
            kind: Any = construct.gives or examples[0].kind
            self._add(construct.name, step, kind, sources)
            return

    def _any(self) -> int:
        """A tensor that is no input; those that nothing reads yet are drawn more often."""
        if self.draw.chance(0.5):
            return self.draw.pick(*self.open)
        return self.draw.random.randint(len(self.inputs), len(self.pool) - 1)

    def _changeable(self, i: int) -> bool:
        tensor = self.pool[i].tensor
        return self.pool[i].owned and tensor.is_contiguous()

    def _heads(self) -> list[int]:
        """Every tensor that nothing reads gets a layer of its own."""
        outputs = []
        for i in list(self.open):
            x = self.pool[i]
            how = self.draw.pick("mean", "flatten", "tokens", "amax") if x.tensor[0].numel() <= 2000 else "mean"
            self._add("head", self._head(x, how), "vector", (i,))
            outputs.append(len(self.pool) - 1)
        return outputs

    def _head(self, x: Example, how: str) -> Step:
        dims = x.places
        tied = self.embedding
        if tied is not None and x.kind != "image" and tied.weight.shape[1] == x.c:
            layer = nn.Linear(x.c, 9, bias=False)
            layer.weight = tied.weight
            return Step(lambda m, y: m.o(y.mean(1) if dims else y)[:, :3] + m.b, o=layer, b=self.draw.parameter(3))
        if how == "flatten" and dims:
            return Step(lambda m, y: m.o(y.flatten(1)), o=nn.Linear(x.tensor[0].numel(), 3))
        if how == "tokens" and x.kind == "tokens":
            return Step(lambda m, y: m.o(F.gelu(y)).mean(1), o=nn.Linear(x.c, 3))
        if how == "amax" and dims:
            return Step(lambda m, y: m.o(y.amax(dims)), o=nn.Linear(x.c, 3))
        return Step(lambda m, y: m.o(y.mean(dims) if dims else y), o=nn.Linear(x.c, 3))
