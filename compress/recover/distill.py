"""What a smaller network learns from the original it was made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from compress.evaluate import class_scores
from compress.graph.calls import op_name
from compress.graph.trace import owner
from compress.recover.modes import copied, forward_of

FEATURE_WEIGHT = 1.0
_MOST = 4  # features that are compared where all have as many positions
_COMPARED = (
    *("add", "add_", "relu", "relu_", "gelu", "silu", "silu_", "hardswish", "hardswish_"),
    *("hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "elu", "mish", "tanh", "sigmoid"),
)


def soft_loss(scores: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(target / T) || softmax(scores / T)), summed over samples (Hinton et al., 2015, arXiv:1503.02531).

    Args:
        scores: Of the network that learns, (N, classes).
        target: Of the original.
        temperature: T; the higher, the more the classes that are not the most likely one count.
    """
    log_p = functional.log_softmax(scores / temperature, dim=1)
    log_q = functional.log_softmax(target / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_p, log_q, reduction="sum", log_target=True)


def feature_loss(found: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Squared distances of normalised features, summed over samples and averaged over pairs.

    Features of one shape are compared value by value. Where one dim (the channels) is smaller, the squares are
    averaged over it first: what is compared is where there is much (Zagoruyko and Komodakis, 2017, arXiv:1612.03928).
    """
    distances = []
    for one, other in zip(found, targets, strict=True):
        one, other = one.float(), other.float()
        smaller = _smaller(one.shape, other.shape)
        if smaller is not None:
            one, other = one.square().mean(smaller), other.square().mean(smaller)
        a, b = (functional.normalize(each.flatten(1), dim=1, eps=1e-6) for each in (one, other))
        distances.append((a - b).square().sum())
    return torch.stack(distances).mean()


def shared_features(small: fx.GraphModule, large: fx.GraphModule, inputs: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Names of the nodes of two networks that can be compared: sums and activations of the same place.

    Of those with equally many positions the last is taken, so that there is one for every resolution; where all
    have equally many, as in a transformer, up to four along the way.
    """
    one, other = _shapes(small, inputs), _shapes(large, inputs)
    pairs: dict[tuple[int, ...], list[tuple[str, str]]] = {}
    for key in one.keys() & other.keys():
        (name, shape), (twin, dense) = one[key], other[key]
        smaller = _smaller(shape, dense)
        if len(shape) > 2 and len(shape) == len(dense) and smaller != -1:
            positions = shape[1:] if smaller is None else (*shape[1:smaller], *shape[smaller + 1 :])
            spatial = positions if smaller is not None else positions[1:] if len(shape) == 4 else positions[:1]
            pairs.setdefault(tuple(spatial), []).append((name, twin))
    order = {node.name: i for i, node in enumerate(small.graph.nodes)}
    groups = [sorted(group, key=lambda pair: order[pair[0]]) for group in pairs.values()]
    if len(groups) == 1:
        (group,) = groups
        count = min(_MOST, len(group))
        return [group[(i + 1) * len(group) // count - 1] for i in range(count)]
    return sorted((group[-1] for group in groups), key=lambda pair: order[pair[0]])


def _smaller(shape: Sequence[int], dense: Sequence[int]) -> int | None:
    """The one dim that differs; None where none does, -1 where several do."""
    dims = [d for d, (a, b) in enumerate(zip(shape, dense, strict=False)) if a != b]
    return None if not dims else dims[0] if len(dims) == 1 else -1


class _Shapes(fx.Interpreter):
    """Runs a network and notes the shapes on the way, by where and what: names change when a network is stored."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[tuple[str, str, int], tuple[str, tuple[int, ...]]] = {}
        self._count: Counter[tuple[str, str]] = Counter()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        op = op_name(n.target).partition("::")[2] if n.op == "call_function" else ""
        if op in _COMPARED and isinstance(value, Tensor):
            place = (owner(n), op)
            self._count[place] += 1
            self.found[(*place, self._count[place])] = (n.name, tuple(value.shape))
        return value


def _shapes(module: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[Any, tuple[str, tuple[int, ...]]]:
    run = _Shapes(module)
    with torch.no_grad():
        run.run(*(x.clone() for x in inputs))
    return run.found


class Teacher:
    """The original network, in eval mode and without gradients.

    Args:
        network: The original, traced.
        features: Names of its nodes whose values are compared.
    """

    def __init__(self, network: fx.GraphModule, features: Sequence[str] = ()) -> None:
        self.network = network
        self.features = features
        self._run = forward_of(network, copied(network, features))

    def __call__(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Class scores (N, classes) and the features."""
        with torch.no_grad():
            output = self._run(self.network, inputs.clone())  # the network may work in place on its input
        output, features = output if self.features else (output, [])
        return class_scores(output, len(inputs)).float(), features
