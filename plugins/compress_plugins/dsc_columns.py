"""Which inputs of the layers of a stack go: an order of all of them, and how far along it a goal is met."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from compress_plugins.dsc_layers import Gating, ShortCircuit, short_circuits

Scope = Literal["layer", "all"]


@dataclass(frozen=True)
class Order:
    """Inputs of layers in the order in which they go.

    Attributes:
        widths: By layer how many inputs it has.
        steps: (layer, input) from the first that goes to the last that may; the others always stay.
        keys: By step how far it lies along the order: the share of its layer that is gone with it, or its score.
    """

    widths: Mapping[str, int]
    steps: tuple[tuple[str, int], ...]
    keys: tuple[float, ...]

    @property
    def total(self) -> int:
        return sum(self.widths.values())

    def kept(self, removed: int) -> dict[str, Tensor]:
        """By layer what stays when the first so many steps are taken, boolean (inputs,)."""
        found = {layer: torch.ones(width, dtype=torch.bool) for layer, width in self.widths.items()}
        for layer, column in self.steps[:removed]:
            found[layer][column] = False
        return found

    def before(self, limit: float) -> int:
        """How many steps lie before a place of the order."""
        return sum(key < limit for key in self.keys)


def scores(network: fx.GraphModule, gating: Gating, samples: Tensor | None) -> dict[str, Tensor]:
    """By layer a score of every input, (inputs,) on the CPU.

    sigma(C_i) times the norm of column i for ``effective``, times the size of feature i as well for ``contribution``;
    else sigma(C_i).

    Args:
        network: With its gates.
        gating: Of the options.
        samples: By which the size of features is measured.
    """
    found = {}
    sizes = feature_sizes(network, samples) if gating == "contribution" and samples is not None else {}
    for name, module in short_circuits(network).items():
        opened = module.open().detach()
        if gating in ("effective", "contribution"):
            columns = module.whole(network.get_parameter(module.reading.layer.weight)).detach()
            opened = opened * columns.transpose(0, 1).flatten(1).norm(dim=1)
        found[name] = opened.double().cpu() * sizes.get(name, 1.0)
    return found


def feature_sizes(network: fx.GraphModule, samples: Tensor) -> dict[str, Tensor]:
    """By layer the root mean square of each of its inputs, before its gate: (inputs,)."""
    network = copy.deepcopy(network).cpu().eval()
    sums = {name: torch.zeros(m.reading.width, dtype=torch.float64) for name, m in short_circuits(network).items()}

    def note(module: ShortCircuit, args: tuple[Any, ...]) -> None:
        joined = module.joined(*args[2:]).double().movedim(module.reading.dim, 0).flatten(1)
        sums[module.reading.layer.name] += joined.square().mean(1) * len(args[-1])

    for module in short_circuits(network).values():
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        for part in samples.split(256):
            network(part)
    return {name: (total / len(samples)).sqrt() for name, total in sums.items()}


def order(values: Mapping[str, Tensor], modules: Mapping[str, ShortCircuit], scope: Scope) -> Order:
    """Inputs with the lowest scores first, in equal shares of all layers or of all layers together.

    The highest score of every layer stays, and of what every layer gives the feature that scores highest in a layer
    that reads it, so that no layer is left without inputs or without a reader.
    """
    held = _held(values, modules)
    places = []
    for layer, score in values.items():
        ranks = score.argsort(stable=True).argsort()
        for column in range(len(score)):
            if (layer, column) not in held:
                share = (int(ranks[column]) + 1) / len(score)
                places.append((share if scope == "layer" else float(score[column]), layer, column))
    places.sort(key=lambda each: each[0])
    widths = {layer: len(score) for layer, score in values.items()}
    return Order(widths, tuple((layer, column) for _, layer, column in places), tuple(key for key, *_ in places))


def _held(values: Mapping[str, Tensor], modules: Mapping[str, ShortCircuit]) -> set[tuple[str, int]]:
    held = {(layer, int(score.argmax())) for layer, score in values.items()}
    best: dict[str, tuple[float, str, int]] = {}
    for layer, score in values.items():
        reading, start = modules[layer].reading, 0
        for source, size in zip(reading.sources, reading.sizes, strict=True):
            part = score[start : start + size]
            found = (float(part.max()), layer, start + int(part.argmax()))
            best[source] = max(best.get(source, found), found)
            start += size
    return held | {(layer, column) for _, layer, column in best.values()}


def fewest(steps: int, fits: Callable[[int], bool]) -> int | None:
    """The smallest number of steps that fits, by bisection; None where not even all of them do."""
    if not fits(steps):
        return None
    low, high = -1, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def most(steps: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number of steps that fits, by bisection; None where not even none does."""
    if not fits(0):
        return None
    low, high = 0, steps + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def drop(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> None:
    """Let layers read those inputs alone, in place."""
    with torch.no_grad():
        for name, module in short_circuits(network).items():
            module.kept.copy_(kept[name])


def clear(network: fx.GraphModule) -> None:
    """Set the columns of inputs that are not read to zero, in place: momentum and decay move them."""
    with torch.no_grad():
        for module in short_circuits(network).values():
            weight = network.get_parameter(module.reading.layer.weight)
            mask = module.kept.reshape(1, -1, *(1,) * module.reading.spatial)
            older = module.reading.width - weight.shape[1]
            weight.mul_(mask[:, older:])
            if module.older is not None:
                module.older.mul_(mask[:, :older])
