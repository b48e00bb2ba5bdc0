"""Standout, an adaptive dropout, as a way to prune: units that it hardly ever keeps go while the network trains."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.plugin import Context, Figure, InputError, Loop, ModelError, Plan, Series, Session, option
from compress_plugins.standout_fold import fold_exactly, fold_to_means, loss_of, mean_retention
from compress_plugins.standout_gate import Place, Setting, find, gates, insert, means, zero_at_zero
from compress_plugins.standout_targets import Removed, Retention, Targets

Ranking = Literal["layer", "together"]
BetaMode = Literal["scalar", "input_sum"]
Fold = Literal["exact", "constant"]


@dataclass(frozen=True)
class Standout:
    """Trains with an adaptive dropout and removes the units that it keeps least, half of the rest every few epochs"""

    source: ClassVar[str] = (
        "Dutta and Mitra, A Minimal Gradient Flow Method for Adaptive Node Pruning in Convolutional Networks, 2020, "
        "Algorithm 1; Ba and Frey, Adaptive Dropout for Training Deep Neural Networks, NeurIPS 2013"
    )

    nodes: int | None = option(None, "units that each layer keeps; else a budget says it; else half of the units go")
    gamma: float = option(0.5, "share of the rest of the units that goes at each pruning")
    period: int = option(0, "epochs between two prunings, 25 in the paper; 0: so that half of the epochs are enough")
    recovered: bool = option(
        False, "after the first, prune as soon as the validation loss is back where it was, at the latest each period"
    )
    ranking: Ranking = option(
        "layer", "layer: each for itself; together: all units by retention over their layer's mean"
    )
    conv: bool = option(False, "gates for the channels of convolutions, too, by their mean over space")
    alpha: float = option(0.5, "of the retention sigmoid(alpha W x + beta); 0 is a dropout that sees no input")
    beta: float = option(1.0, "of the retention; 1 keeps 73 % where W x is 0")
    beta_mode: BetaMode = option("scalar", "scalar: beta as it is; input_sum: times the sum of the layer's inputs")
    phases: bool = option(False, "SGD until one period after the last pruning, then Adam as it is by default")
    fold: Fold = option(
        "exact", "the result's gates: exact, as operations; constant: their means, in weights, with an error it reports"
    )

    def __post_init__(self) -> None:
        if self.nodes is not None and self.nodes < 1:
            raise ValueError(f"nodes: a layer keeps one unit at least, got {self.nodes}")
        if not 0.01 <= self.gamma <= 1:
            raise ValueError(f"gamma: must be from 0.01 to 1, got {self.gamma:g}")
        if self.period < 0:
            raise ValueError(f"period: must be 0 or more, got {self.period}")
        for name in ("alpha", "beta"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: must be a finite number, got {getattr(self, name)}")
        if self.conv and self.beta_mode == "input_sum":
            raise ValueError("beta_mode: input_sum is about linear layers, and --conv about convolutions")

    def start(self, context: Context) -> Pruning:
        """A session; raises InputError or ModelError where there is nothing to gate, or the target is none."""
        return Pruning(self, context)


class Pruning(Session):
    """One training with gates. Units that have gone are zero in every tensor after each step.

    Attributes:
        places: Where gates are.
        removed: By group the units that have gone.
        prunings: Of each pruning its epoch, and the units that were left of all.
        done: Whether all that is to go has gone.
    """

    def __init__(self, method: Standout, context: Context) -> None:
        super().__init__(context)
        self.method, self.period = method, 0
        self.same_operations = method.fold != "exact"
        self.places = _places(self.network, context, method.conv)
        if method.beta_mode == "input_sum" and not all(map(zero_at_zero, self.places)):
            raise InputError(
                "--beta-mode input_sum: a unit that went would count on, as its activation gives no zero for zero",
                "--beta-mode scalar",
            )
        names = dict.fromkeys(name for place in self.places for name in place.units)
        self.only = tuple(glob.escape(name) for name in names)
        self.targets = Targets(context.changed(only=self.only), method.nodes, method.gamma, method.ranking)
        self.network.eval()
        for place in self.places:
            insert(self.network, place, Setting(method.alpha, method.beta, method.beta_mode == "input_sum"))
        self.removed: Removed = {}
        self.masks: dict[str, Tensor] = {}
        self.prunings: list[list[int]] = []
        self.done = False
        self.before = math.inf  # validation loss before the last pruning
        self.counted: dict[str, Tensor] = {}  # by gate, over the period
        self.history: list[dict[str, Any]] = []

    def begin(self, loop: Loop) -> None:
        epochs, needed = loop.total // loop.steps_per_epoch, self.targets.prunings
        needed += self.method.phases  # SGD stays for one period more
        self.period = self.method.period or max(1, epochs // (2 * needed))
        least = needed * self.period + self.method.phases
        if least > epochs:
            times = "once" if self.targets.prunings == 1 else f"{self.targets.prunings} times"
            adam = " and to change to Adam" if self.method.phases else ""
            raise InputError(
                f"{least} epochs are needed to prune {times} with a period of {self.period}{adam}, not {epochs}",
                f"--epochs {2 * least}, a smaller --period, or a larger --gamma",
            )
        self.history = loop.history
        if self.method.phases and not loop.step:
            loop.change_optimizer(optimizer="sgd")
        self._count(loop, not self.done)

    def after_step(self, loop: Loop) -> None:
        if not self.done:
            for name, gate in gates(loop.network).items():
                new = loop.summed(gate.take())
                self.counted[name] = self.counted[name].to(new.device) + new if name in self.counted else new
        self._mask(loop.network)

    def after_epoch(self, loop: Loop) -> None:
        if not self.done and self._due(loop):
            self._prune(loop)
        if self.method.phases and self.done and loop.epoch == self.prunings[-1][0] + self.period:
            loop.change_optimizer(optimizer="adamw", lr=1e-3, weight_decay=0.0)

    def ready(self, loop: Loop) -> bool:
        return self.done

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        return {"kept units": self._left()}

    def state(self) -> dict[str, Any]:
        return {
            "removed": self.removed, "prunings": self.prunings, "done": self.done, "before": self.before,
            "counted": {name: tensor.cpu() for name, tensor in self.counted.items()},
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        self.removed, self.prunings = dict(state["removed"]), [list(each) for each in state["prunings"]]
        self.done, self.before, self.counted = state["done"], state["before"], dict(state["counted"])
        self.masks = self.context.unit_masks(self.removed)

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        exact = fold_exactly(network)
        if self.method.fold == "exact":
            return exact
        inputs, _ = self.context.samples()
        folded = fold_to_means(network, mean_retention(network, inputs))
        loss = loss_of(exact, folded, inputs)
        self.approximation = (
            f"gates folded to their means: on {loss.samples:,} training samples the scores are off by "
            f"{100 * loss.relative:.2g} % and {100 * loss.changed:.2g} % of the samples are put into another class"
        )
        return folded

    def plan(self, context: Context) -> Plan:
        removed = dict(self._found_again(context))
        notes = {n: {"keeps its width": "no more units than --nodes"} for n, k in self.targets.wanted.items() if not k}
        if context.granularity == "weight":
            return Plan(masks=context.unit_masks(removed), notes=notes, figures=self._figures())
        return Plan(removed, notes=notes, figures=self._figures())

    def _found_again(self, context: Context) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The units that have gone, as the network with folded gates knows them: by the rows that make them."""
        rows: dict[str, list[int]] = {}
        for place in self.places:
            for name, index in place.units.items():
                rows.setdefault(place.weight, []).extend(index[self.removed.get(name, [])].ravel().tolist())
        for group in context.groups:
            for member in group.members:
                if member.dim == 0 and member.tensor in rows:
                    units = np.flatnonzero(np.isin(member.index, rows[member.tensor]).all(1))
                    if len(units):
                        yield group.name, units

    def _due(self, loop: Loop) -> bool:
        last = self.prunings[-1][0] if self.prunings else 0
        if loop.epoch - last >= self.period or not (self.method.recovered and last):
            return loop.epoch - last >= self.period
        judged = loop.history[-1]
        return bool(judged["epoch"] >= last and judged["validation loss"] <= self.before)

    def _prune(self, loop: Loop) -> None:
        event = len(self.prunings) + 1
        self.removed, self.done = self.targets.chosen(event, self._retention(), self.removed)
        self.masks = self.context.unit_masks(self.removed)
        self._mask(loop.network)
        self.prunings.append([loop.epoch, self._left()])
        self.before = loop.history[-1]["validation loss"]
        self.counted = {}
        self._count(loop, not self.done)
        widths = {name: size - len(self.removed.get(name, ())) for name, size in self.targets.sizes.items()}
        listed = ", ".join(f"{name} {width}" for name, width in list(widths.items())[:4])
        more = f" and {len(widths) - 4} layers more" if len(widths) > 4 else ""
        loop.progress.step(f"Pruned after epoch {loop.epoch}: {self._left():,} of {self.targets.size:,} units left")
        loop.progress.detail(f"units left: {listed}{more}")

    def _retention(self) -> dict[str, Retention]:
        """Of each group; where several layers make its units, the mean over them."""
        found: dict[str, list[Tensor]] = {}
        for place in self.places:
            both = torch.stack(means(self.counted[place.name])).cpu()
            for name, index in place.units.items():
                found.setdefault(name, []).append(both[:, torch.from_numpy(index)].mean(2))
        return {name: Retention(*torch.stack(each).mean(0)) for name, each in found.items()}

    def _left(self) -> int:
        return self.targets.size - sum(map(len, self.removed.values()))

    def _count(self, loop: Loop, wanted: bool) -> None:
        for gate in gates(loop.network).values():
            gate.counts = "training" if wanted else "never"

    def _mask(self, network: fx.GraphModule) -> None:
        parameters = dict(network.named_parameters(remove_duplicate=False)) if self.masks else {}
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.masks[name] = mask = mask.to(parameters[name].device)
                parameters[name].mul_(mask)

    def _figures(self) -> tuple[Figure, ...]:
        return (
            _figure("standout-loss", "Loss", ("loss", "validation loss"), self.history, self.prunings),
            _figure("standout-accuracy", "Accuracy", ("validation accuracy",), self.history, self.prunings),
        )


def _places(network: fx.GraphModule, context: Context, convolutions: bool) -> list[Place]:
    """Where gates go: all groups that have to shrink together have one, or none of them has.

    Raises:
        ModelError: Nowhere.
    """
    found = find(network, context, convolutions)
    gated = {name for place in found for name in place.units}
    whole = {name for cluster in context.clusters if gated.issuperset(cluster.groups) for name in cluster.groups}
    made = [replace(p, units={n: i for n, i in p.units.items() if n in whole}) for p in found]
    made = [place for place in made if place.units]
    if not made:
        raise ModelError(
            "nowhere to put a gate: no linear layer that an activation alone reads has units that may go",
            "`compress inspect` lists what may go" if convolutions else "--conv puts gates behind convolutions, too",
        )
    return made


def _figure(
    name: str, what: str, keys: Sequence[str], history: Sequence[Mapping[str, Any]], prunings: Sequence[Sequence[int]]
) -> Figure:
    """Losses or accuracies by epoch, with a point and the units left at each pruning."""
    series = []
    for key in keys:
        told = [entry for entry in history if key in entry]
        series.append(Series(key, [entry["epoch"] for entry in told], [entry[key] for entry in told]))
    left = {epoch: str(units) for epoch, units in prunings}
    marked = [entry for entry in history if entry["epoch"] in left]
    epochs, at = [entry["epoch"] for entry in marked], [entry[keys[-1]] for entry in marked]
    series.append(Series("pruned, units left", epochs, at, "points", names=[left[epoch] for epoch in epochs]))
    return Figure(name, f"{what} while units go", "epoch", what.lower(), tuple(series))
