"""Compensation without training: layers refitted in closed form so that they give what the dense network gave.

Layer after layer, in graph order, the weight of every linear layer and convolution of the sliced network is refitted
by ridge least squares: its inputs are those of the sliced network, with all errors made so far, its target is the
output of the dense network on the same data. Where the layer's output is added to a shortcut, the target also makes
up for what the shortcut has lost. Then the layer and those right before it are refitted together (``newton.py``), to
the dense result behind the norm and the sum that follow. Batch norms behind layers that cannot be refitted get the
statistics of the sliced network. Zeros stay where weights were masked. Nothing that does not help on held-out
calibration data is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.calibration.layers import Layers, is_layer, op_of
from compress.calibration.normal import Layer, Moments, flat_weight, residuals, unflatten
from compress.calibration.walk import Walker, affordable
from compress.graph import Coupling, attribute, slice_tensor
from compress.graph.labels import Value
from compress.graph.rules import Kept
from compress.progress import Progress, Silent
from compress.recover.copied import own_copy
from compress.recover.jointly import Budget, jointly
from compress.recover.norms import restated
from compress.recover.shortcut import shortcut
from compress.recover.window import Window, window

RIDGE = 1e-4
MAX_FEATURES = 8192  # a normal matrix of 0.5 GB; wider layers keep their weights


@dataclass(frozen=True)
class Compensation:
    """What was done.

    Attributes:
        module: The refitted network; the sliced one that went in is not changed.
        samples: Calibration samples used.
        refitted: By layer the held-out error after the refit over that before.
        skipped: By layer the reason it was left as it was.
        together: By the last of layers that were refitted together, the same ratio of the error behind it.
        apart: By the last of layers that could be refitted together the reason why they were not.
        norms: By batch norm whose statistics were estimated again, the same ratio.
    """

    module: fx.GraphModule
    samples: int
    refitted: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    together: dict[str, float] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)


def compensate(
    coupling: Coupling,
    alive: NDArray[np.bool_],
    sliced: fx.GraphModule,
    inputs: Tensor,
    *,
    batch: int = 64,
    ridge: float = RIDGE,
    seed: int = 0,
    layers: bool = True,
    together: bool = True,
    keep_zeros: bool = False,
    progress: Progress | None = None,
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
        layers: Refit layers; without it only the statistics of batch norms are estimated again.
        together: Refit layers together with those right before them, too.
        keep_zeros: Weights that are zero stay zero, as in a network with masked weights; layers are then refitted one
            by one.
        progress: Is told how many layers are done.
    """
    module = own_copy(sliced)
    solver = Layers(module, coupling.flow.untrained)
    windows = _windows(module, solver) if layers and together and not keep_zeros else {}
    dense = {n.name: n for n in coupling.program.module.graph.nodes}
    held = {dense[s.name]: dense[last.name] for s, last in _held(windows).items() if s.name in dense}
    inputs = inputs[: affordable(coupling, hold=held)]
    batch = min(batch, max(1, len(inputs) // 5))  # so that a fifth can judge
    run = _Run(coupling, alive, solver, list(inputs.split(batch)), ridge, seed, windows, keep_zeros)
    stops = [n for n in run.sliced.nodes if (layers and is_layer(n)) or op_of(n) == "aten::batch_norm"]
    for node in (progress or Silent()).track(stops, "refitting", len(stops)):
        run.stop(node)
    return Compensation(module, len(inputs), run.refitted, run.skipped, run.together, run.apart, run.norms)


def _windows(module: fx.GraphModule, solver: Layers) -> dict[fx.Node, Window]:
    """By layer those that are refitted together with it, where there are any."""
    nodes = list(module.graph.nodes)

    def solvable(node: fx.Node) -> bool:
        return not solver.obstacle(node)

    found = {n: window(nodes, n, solvable) for n in nodes if is_layer(n) and solvable(n)}
    return {n: w for n, w in found.items() if len(w.layers) > 1}


def _held(windows: dict[fx.Node, Window]) -> dict[fx.Node, fx.Node]:
    """What windows read from outside, until their last layer."""
    return {source: last for last, part in windows.items() for source in part.inputs}


class _Run:
    """One pass over both networks side by side."""

    def __init__(
        self,
        coupling: Coupling,
        alive: NDArray[np.bool_],
        layers: Layers,
        chunks: Sequence[Tensor],
        ridge: float,
        seed: int,
        windows: dict[fx.Node, Window],
        keep_zeros: bool,
    ) -> None:
        batches = [(c,) for c in chunks]
        self.coupling, self.kept, self.ridge, self.layers = coupling, Kept(alive), ridge, layers
        self.dense = Walker(coupling.program.module, batches)
        self.sliced = Walker(layers.module, batches, _held(windows))
        self.twin = {n.name: n for n in self.dense.nodes}
        self.generator = torch.Generator().manual_seed(seed)
        self.judges = max(1, len(chunks) // 5) if len(chunks) > 1 else 0
        self.windows, self.budget = windows, Budget(len(windows))
        self.left, self.keep_zeros = coupling.kept(alive), keep_zeros
        self.refitted: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self.together: dict[str, float] = {}
        self.apart: dict[str, str] = {}
        self.norms: dict[str, float] = {}
        self.solved: set[fx.Node] = set()

    def stop(self, node: fx.Node) -> None:
        """Refit one layer or norm of the sliced network, then leave both networks just before it."""
        while self.sliced.nodes[self.sliced.position] is not node:
            self.sliced.step()
        if is_layer(node):
            self._refit(node)
        else:
            self._restate(node)

    def _refit(self, node: fx.Node) -> None:
        name = self.layers.name(node)
        reason = self.layers.obstacle(node)
        if reason:
            self.skipped[name] = reason
            return
        layer = self.layers.layer(node)
        if layer.features > MAX_FEATURES:
            self.skipped[name] = f"{layer.features} inputs are too many for a normal matrix"
            return
        twin = self.twin[node.name]
        self.dense.run_to(twin)
        self._fit(node, layer, name, self._targets(node, twin))
        self.solved.add(node)
        if node in self.windows and self.judges:
            self._fit_together(self.windows[node], name)

    def _targets(self, node: fx.Node, twin: fx.Node) -> list[Tensor]:
        """What the layer should put out on every batch: the dense output, corrected for a lossy shortcut."""
        targets = self._dense(twin)
        found = shortcut(self.layers, node, self.twin)
        if found is None:
            return targets
        other, scale = found
        dense_other = self.twin[other.name]
        if not (self.sliced.has(other) and self.dense.has(dense_other)):
            return targets
        pairs = zip(targets, self._dense(dense_other), self.sliced.values(other), strict=True)
        return [t + (d - s) / scale for t, d, s in pairs]

    def _dense(self, twin: fx.Node) -> list[Tensor]:
        """What a node of the dense network gave, without what the slice removed."""
        value = self.coupling.flow.values[twin]
        return [self._cut(t, value) for t in self.dense.values(twin)]

    def _cut(self, tensor: Tensor, value: Value) -> Tensor:
        mask = self.kept.element_mask(value)
        if mask is None:
            return tensor
        # No mask depends on the batch, which was another in the example of the trace, and may be any dim.
        shape = [
            size if same == 1 else left
            for size, same, left in zip(tensor.shape, mask.shape, self.kept.shape(value), strict=True)
        ]
        return tensor[torch.as_tensor(np.ascontiguousarray(mask)).expand(tensor.shape)].reshape(shape)

    def _fit(self, node: fx.Node, layer: Layer, name: str, targets: list[Tensor]) -> None:
        groups = layer.groups
        fit = Moments(groups, layer.features, layer.weight.shape[0] // groups)
        inputs = self.sliced.values(self.layers.args(node)["input"])
        batches = list(zip(inputs, targets, strict=True))
        for x, y in batches[: len(batches) - self.judges]:
            fit.add(*layer.rows(x, y, self.generator))
        old = flat_weight(layer.weight, groups)
        shift = self.layers.shift(node)
        solve = fit.solve_within if self.keep_zeros and bool((old == 0).any()) else fit.solve
        new, intercept = solve(old, self.ridge, shift is not None)
        now = self._present(shift, intercept)
        before = after = 0.0
        for x, y in batches[len(batches) - self.judges :]:
            rows = layer.rows(x, y, self.generator)
            before += residuals(*rows, old, now)
            after += residuals(*rows, new, intercept)
        if self.judges and not after < before:
            self.skipped[name] = "a refit does not help on held-out data" if before > 0 else "nothing was lost"
            return
        self.refitted[name] = after / before if before > 0 else 1.0
        with torch.no_grad():
            layer.weight.copy_(unflatten(new, layer.weight))
            if shift is not None:
                moved = self.layers.tensor_named(shift[0])
                constant = intercept.reshape(-1)
                moved.copy_(constant if shift[1] > 0 else self._original(shift[0]).double() - constant)

    def _present(self, shift: tuple[str, int] | None, like: Tensor) -> Tensor:
        """The constant that a layer adds now: its bias, or by how much less the norm behind it subtracts."""
        if shift is None:
            return torch.zeros_like(like)
        now = self.layers.tensor_named(shift[0]).double()
        return (now if shift[1] > 0 else self._original(shift[0]) - now).reshape(like.shape)

    def _original(self, name: str) -> Tensor:
        """A tensor of the dense network, without what the slice removed."""
        tensor: Tensor = attribute(self.coupling.program.module, name)
        return slice_tensor(tensor.detach(), self.left.get(name, {}))

    def _fit_together(self, part: Window, name: str) -> None:
        twin = self.twin[part.end.name]
        self.dense.run_to(twin)
        if not self.dense.has(twin):
            return
        read = [*part.inputs, *(s for s in part.layers[-1].all_input_nodes if s.op != "get_attr")]
        envs = [{s: values[s] for s in read} for values in self.sliced.env]
        done = jointly(part, self.layers, envs, self._dense(twin), self.judges, self.budget, self.generator)
        if isinstance(done, str):
            self.apart[name] = done
            return
        self.together[name] = done
        for values, fresh in zip(self.sliced.env, envs, strict=True):
            values.update(fresh)

    def _restate(self, node: fx.Node) -> None:
        """Statistics of a batch norm, unless the layer before it was refitted to the dense one."""
        source: Any = node.args[0]
        mean = None if node.args[3] is None else self.layers.mean_of(node)
        if source in self.solved or mean is None:
            return
        twin = self.twin[node.name].args[0]
        self.dense.run_to(twin)  # type: ignore[arg-type]
        if not self.dense.has(twin):  # type: ignore[arg-type]
            return
        original = [self._original(str(a.target)) for a in node.args[3:5]]  # type: ignore[union-attr]
        inputs, dense = self.sliced.values(source), self._dense(twin)  # type: ignore[arg-type]
        ratio = restated(node, self.layers, inputs, dense, self.judges, original)
        if ratio is not None:
            self.norms[mean[0].rpartition(".")[0]] = ratio
