"""Compensation without training: layers refitted in closed form so that they give what the dense network gave.

Layer after layer, in graph order, the weight of every linear layer and convolution of the sliced network is refitted
by ridge least squares: its inputs are those of the sliced network, with all errors made so far, its target is the
output of the dense network on the same data. Where the layer's output is added to a shortcut, the target also makes
up for what the shortcut has lost. A refit that does not help on held-out calibration data is not taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph import Coupling, attribute
from compress.graph.labels import Value
from compress.graph.propagate import bind, op_name
from compress.graph.rules import Kept
from compress.recover.normal import Layer, Moments, flat_weight, unflatten
from compress.recover.walk import Walker, affordable

RIDGE = 1e-4
MAX_FEATURES = 8192  # a normal matrix of 0.5 GB; wider layers keep their weights
_CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::conv3d")
_THROUGH = ("aten::dropout", "aten::contiguous", "aten::clone", "aten::alias")
_ADD = ("aten::add", "aten::add_")


@dataclass(frozen=True)
class Compensation:
    """What was done.

    Attributes:
        module: The refitted network; the sliced one that went in is not changed.
        samples: Calibration samples used.
        refitted: By layer the held-out error after the refit over that before.
        skipped: By layer the reason it was left as it was.
    """

    module: fx.GraphModule
    samples: int
    refitted: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def compensate(
    coupling: Coupling,
    alive: NDArray[np.bool_],
    sliced: fx.GraphModule,
    inputs: Tensor,
    *,
    batch: int = 64,
    ridge: float = RIDGE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Compensation:
    """Refit the sliced network to the dense one on unlabelled data.

    Args:
        coupling: The analysed dense network (of one input).
        alive: By label, what stays.
        sliced: The sliced network.
        inputs: Calibration samples, first dim the sample; the last fifth judges the refits. As many are used as
            fit into about 4 GB of activations.
        batch: Samples that are run at once.
        ridge: Strength of the pull towards the present weights, relative to the mean squared input.
        seed: Draws the positions of convolutions.
        progress: Called with layers done and layers in all.
    """
    inputs = inputs[: affordable(coupling)]
    batch = min(batch, max(1, len(inputs) // 5))  # so that a fifth can judge
    run = _Run(coupling, alive, _own_copy(sliced), list(inputs.split(batch)), ridge, seed)
    layers = [n for n in run.sliced.nodes if _layer_op(n)]
    for done, node in enumerate(layers):
        run.refit(node)
        if progress is not None:
            progress(done + 1, len(layers))
    return Compensation(run.sliced.module, len(inputs), run.refitted, run.skipped)


def _own_copy(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose tensors may be written without touching the original's."""
    graph = copy.deepcopy(module.graph)
    tensors: dict[int, Any] = {}
    attributes: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            if id(value) not in tensors:
                tensors[id(value)] = copy.deepcopy(value)
            attributes[str(node.target)] = tensors[id(value)]
    return fx.GraphModule(attributes, graph, class_name="Network")


def _layer_op(node: fx.Node) -> bool:
    return node.op == "call_function" and op_name(node.target) in ("aten::linear", *_CONVOLUTIONS)


class _Run:
    """One pass over both networks side by side."""

    def __init__(
        self,
        coupling: Coupling,
        alive: NDArray[np.bool_],
        sliced: fx.GraphModule,
        chunks: Sequence[Tensor],
        ridge: float,
        seed: int,
    ) -> None:
        batches = [(c,) for c in chunks]
        self.coupling, self.kept, self.ridge = coupling, Kept(alive), ridge
        self.dense = Walker(coupling.program.module, batches)
        self.sliced = Walker(sliced, batches)
        self.twin = {n.name: n for n in self.dense.nodes}
        self.generator = torch.Generator().manual_seed(seed)
        self.judges = max(1, len(chunks) // 5) if len(chunks) > 1 else 0
        self.refitted: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        uses: dict[str, int] = {}
        for node in self.sliced.nodes:
            if node.op == "get_attr":
                uses[str(node.target)] = uses.get(str(node.target), 0) + len(node.users)
        self.uses = uses

    def refit(self, node: fx.Node) -> None:
        """Refit one layer of the sliced network, then leave both networks just before it."""
        while self.sliced.nodes[self.sliced.position] is not node:
            self.sliced.step()
        args = bind(node.target, node.args, node.kwargs)
        name = str(args["weight"].target) if getattr(args["weight"], "op", "") == "get_attr" else node.name
        twin = self.twin[node.name]
        self.dense.run_to(twin)
        reason = self._obstacle(args)
        if reason:
            self.skipped[name] = reason
            return
        layer = self._layer(node, args)
        if layer.features > MAX_FEATURES:
            self.skipped[name] = f"{layer.features} inputs are too many for a normal matrix"
            return
        self._fit(node, args, layer, name, self._targets(node, twin))

    def _obstacle(self, args: dict[str, Any]) -> str:
        weight = args["weight"]
        if weight.op != "get_attr":
            return "its weight is computed"
        if str(weight.target) in self.coupling.flow.untrained:
            return "its weight is frozen"
        if self.uses[str(weight.target)] > 1:
            return "its weight is shared"
        if isinstance(args.get("padding"), str):
            return "padding by name"
        bias = args.get("bias")
        return "its bias is shared" if bias is not None and self.uses[str(bias.target)] > 1 else ""

    def _layer(self, node: fx.Node, args: dict[str, Any]) -> Layer:
        weight = attribute(self.sliced.module, str(args["weight"].target))
        spatial = weight.dim() - 2
        if op_name(node.target) == "aten::linear":
            return Layer(weight)

        def sizes(key: str, default: int) -> tuple[int, ...]:
            value = args.get(key, default)
            value = [value] if isinstance(value, int) else list(value)
            return tuple(value * spatial if len(value) == 1 else value)

        return Layer(weight, args.get("groups", 1), sizes("stride", 1), sizes("padding", 0), sizes("dilation", 1))

    def _targets(self, node: fx.Node, twin: fx.Node) -> list[Tensor]:
        """What the layer should put out on every batch: the dense output, corrected for a lossy shortcut."""
        value = self.coupling.flow.values[twin]
        targets = [self._cut(t, value) for t in self.dense.values(twin)]
        shortcut = self._shortcut(node)
        if shortcut is None:
            return targets
        other, scale = shortcut
        dense_other = self.twin[other.name]
        if not (self.sliced.has(other) and self.dense.has(dense_other)):
            return targets
        lost = self.coupling.flow.values[dense_other]
        pairs = zip(targets, self.dense.values(dense_other), self.sliced.values(other), strict=True)
        return [t + (self._cut(d, lost) - s) / scale for t, d, s in pairs]

    def _cut(self, tensor: Tensor, value: Value) -> Tensor:
        """A dense tensor without what the slice removed."""
        mask = self.kept.element_mask(value)
        if mask is None:
            return tensor
        # The example of the trace had another batch size, which no mask depends on.
        full = torch.as_tensor(np.ascontiguousarray(mask)).expand([*tensor.shape[:1], *mask.shape[1:]])
        full = full.expand(tensor.shape)
        return tensor[full].reshape(tensor.shape[0], *self.kept.shape(value)[1:])

    def _shortcut(self, node: fx.Node) -> tuple[fx.Node, Tensor | float] | None:
        """The other summand where the layer's output is added to one, and the scale on the way there."""
        scale: Tensor | float = 1.0
        while len(node.users) == 1:
            user = next(iter(node.users))
            op = op_name(user.target) if user.op == "call_function" else ""
            if op in _ADD and not user.kwargs:
                others = [a for a in user.args if a is not node]
                same = len(others) == 1 and isinstance(others[0], fx.Node) and len(user.args) == 2
                return (others[0], scale) if same and self._is_activation(others[0]) else None  # type: ignore[return-value]
            if op == "aten::batch_norm" and user.args[0] is node and not user.args[5]:
                scale = self._norm_scale(user, scale)
            elif op not in _THROUGH:
                return None
            node = user
        return None

    def _is_activation(self, node: Any) -> bool:
        return node.op == "call_function" and node.name in self.twin and not _constant(node)

    def _norm_scale(self, node: fx.Node, scale: Tensor | float) -> Tensor:
        weight, variance, eps = node.args[1], node.args[4], node.args[7]
        module = self.sliced.module
        gain = 1.0 if weight is None else attribute(module, str(weight.target)).detach()  # type: ignore[union-attr]
        factor = gain / torch.sqrt(attribute(module, str(variance.target)) + eps)  # type: ignore[union-attr]
        factor = torch.where(factor.abs() < 1e-6, torch.full_like(factor, float("inf")), factor)
        spatial = len(node.meta["val"].shape) - 2 if "val" in node.meta else 2
        return scale * factor.reshape(1, -1, *(1,) * spatial)

    def _fit(self, node: fx.Node, args: dict[str, Any], layer: Layer, name: str, targets: list[Tensor]) -> None:
        groups = layer.groups
        fit, judge = (Moments(groups, layer.features, layer.weight.shape[0] // groups) for _ in range(2))
        inputs = self.sliced.values(args["input"])
        for i, (x, y) in enumerate(zip(inputs, targets, strict=True)):
            (judge if i >= len(inputs) - self.judges else fit).add(*layer.rows(x, y, self.generator))
        old = flat_weight(layer.weight, groups)
        bias = self._bias(args, node)
        new, intercept = fit.solve(old, self.ridge, bias is not None)
        before = judge.error(old, _as_groups(bias, groups) if bias is not None else torch.zeros_like(intercept))
        after = judge.error(new, intercept)
        if self.judges and not after < before:
            self.skipped[name] = "a refit does not help on held-out data" if before > 0 else "nothing was lost"
            return
        self.refitted[name] = after / before if before > 0 else 1.0
        with torch.no_grad():
            layer.weight.copy_(unflatten(new, layer.weight))
            if bias is not None:
                self._write_bias(args, node, intercept.reshape(-1))

    def _bias(self, args: dict[str, Any], node: fx.Node) -> Tensor | None:
        """The present bias; that of a following batch norm's mean for a layer without one; None without either."""
        if args.get("bias") is not None:
            tensor: Tensor = attribute(self.sliced.module, str(args["bias"].target))
            return tensor.detach()
        mean = self._following_mean(node)
        return None if mean is None else torch.zeros_like(mean)

    def _following_mean(self, node: fx.Node) -> Tensor | None:
        users = list(node.users)
        if len(users) != 1 or users[0].op != "call_function" or op_name(users[0].target) != "aten::batch_norm":
            return None
        norm = users[0]
        if norm.args[3] is None or norm.args[5] or self.uses[str(norm.args[3].target)] > 1:  # type: ignore[union-attr]
            return None
        tensor: Tensor = attribute(self.sliced.module, str(norm.args[3].target))  # type: ignore[union-attr]
        return tensor

    def _write_bias(self, args: dict[str, Any], node: fx.Node, intercept: Tensor) -> None:
        if args.get("bias") is not None:
            bias: nn.Parameter = attribute(self.sliced.module, str(args["bias"].target))
            bias.copy_(intercept.to(bias.dtype))
            return
        mean = self._following_mean(node)
        if mean is not None:
            mean -= intercept.to(mean.dtype)


def _as_groups(bias: Tensor, groups: int) -> Tensor:
    return bias.double().reshape(groups, -1)


def _constant(node: fx.Node) -> bool:
    """Whether nothing but parameters goes into a node."""
    sources = list(node.all_input_nodes)
    return bool(sources) and all(s.op == "get_attr" for s in sources)
