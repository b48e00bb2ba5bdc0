"""Wirings: which edges of 1x1 convolutions and linear layers a network needs, found while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx

from compress.plugin import Context, Loop, Plan, Session, annealed, option, share_of_zeros
from compress_plugins.amounts import check_fraction, check_one_size
from compress_plugins.edges import (
    Strongest,
    Thresholded,
    by_epoch,
    count,
    count_others,
    edge_weights,
    group_dims,
    read_all_through,
)
from compress_plugins.ranking import Magnitudes
from compress_plugins.thresholds import prox_l1, prox_l12

By = Literal["ds", "dnw", "proximal"]
Groups = Literal["matrix", "output"]
Norm = Literal["l1", "l12", "l12-exact"]
Scope = Literal["auto", "layer", "all"]

_KEEP = 0.2  # where nobody says how much
_LAMS = {"l1": 1e-3, "l12": 1e-6, "l12-exact": 1e-6}  # where lambda begins; the steps of l12 grow with the edges' sum
_PARTS = 8  # of an epoch: how often edges beyond a budget are cut
_MU = 3.0  # of the schedule of these cuts
_HARMLESS = 0.05  # share of all magnitude that the cuts of the next epoch may take without more strength
_EDGES = "wiring_edges"  # the module through which a network reads them
_NEARLY = 1e-4  # below it an edge is counted as nearly zero


@dataclass(frozen=True)
class Wiring:
    """Trains single edges of 1x1 convolutions, or of linear layers, to zero and removes the nodes that are dead then"""

    source: ClassVar[str] = (
        "Lee, Differentiable Sparsification for Deep Neural Networks, 2019, equation 12 and section on discovering "
        "neural wirings; dnw: Wortsman et al., Discovering Neural Wirings, NeurIPS 2019"
    )
    granularities: ClassVar[tuple[str, ...]] = ("weight",)

    keep: float | None = option(None, "fraction of the edges that stays: 0.2 where no budget, keep or lam is given")
    by: By = option("ds", "ds: learned thresholds; dnw: the largest edges are used, all trained; proximal")
    lam: float | None = option(None, "ds, proximal: weight of the norm, which follows where a fraction is to stay")
    group: Groups = option("matrix", "which edges share a threshold: those of a weight matrix, or of one output")
    rectified: bool = option(False, "ds: edges that are zero keep a gradient and can come back")
    norm: Norm = option("l1", "proximal: l1; l12 as printed, or its exact step: edges of a group compete")
    scope: Scope = option("auto", "what is ranked: all edges, or those of each layer; auto: of each for dnw, else all")

    def __post_init__(self) -> None:
        check_fraction(self.keep)
        if self.lam is not None and not 0 <= self.lam < math.inf:
            raise ValueError(f"lam: must be 0 or more, got {self.lam:g}")
        if self.rectified and self.by != "ds":
            raise ValueError(f"rectified: is about the thresholds of --by ds, not about {self.by}")
        if self.norm != "l1" and self.by != "proximal":
            raise ValueError(f"norm: {self.norm} is a step of --by proximal; {self.by} has none")

    def start(self, context: Context) -> Wired:
        """A session; raises InputError or ModelError where there are no edges, or zeros cannot meet the budget."""
        return Wired(self, context)


class Wired(Session):
    """One training whose edges become zero, by thresholds that are learned, by rank, or by proximal steps.

    Where a fraction is to stay, the smallest edges are cut on the schedule of annealing, which ends at half of the
    training; the others then train on without the norm. Until then the strength of the norm follows: it doubles within
    an epoch while the edges that the next epoch cuts hold more than a twentieth of all magnitude, and halves otherwise.
    Under a lambda alone the last epoch is the result, as exact zeros come when the learning rate is small.
    """

    def __init__(self, method: Wiring, context: Context) -> None:
        super().__init__(context)
        self.method, weights = method, edge_weights(context)
        self.edges = tuple(weights)
        self.dims = {name: group_dims(context, name, method.group) for name in weights}
        self.keep = _kept_share(method, context, weights)
        self.sizes = Magnitudes(method.scope == "all" or (method.scope == "auto" and method.by != "dnw"))
        self.lam = _LAMS[method.norm] if method.lam is None else method.lam
        self.counts: list[list[int]] = []  # epoch, edges that are not zero
        self.size = sum(weight.numel() for weight in weights.values())
        self.masks: dict[str, Tensor] = {}  # proximal steps need no module
        self._parameterise()

    def undecayed(self) -> Iterable[str]:
        """Alphas are no weights: what a decay took from them the thresholds would not give back."""
        return (f"{_EDGES}.alpha", f"{_EDGES}.beta") if self.method.by == "ds" else ()

    def begin(self, loop: Loop) -> None:
        if self.method.by == "dnw":
            self._rank(loop.network)
        if not self.counts:
            self._count(loop)

    def penalty(self, loop: Loop) -> Tensor | None:
        if self.method.by != "ds" or self._is_cut(loop) or not self.lam:
            return None
        reader = loop.network.get_submodule(_EDGES)
        assert isinstance(reader, Thresholded)
        return self.lam * reader.norm()

    def after_step(self, loop: Loop) -> None:
        if self.method.by == "ds":
            reader = loop.network.get_submodule(_EDGES)
            assert isinstance(reader, Thresholded)
            reader.norms.clear()  # of a step without a norm
        if self.method.by == "dnw":
            self._rank(loop.network)
            return
        if self.method.by == "proximal":
            self._step(loop)
        if self.keep is not None:
            self._narrow(loop, self.keep)

    def after_epoch(self, loop: Loop) -> None:
        self._count(loop)

    def ready(self, loop: Loop) -> bool:
        """From the last cut on; without any in the last epoch. Ranked edges are cut throughout, and have to train."""
        if self.method.by == "dnw":
            return loop.step > 0
        return loop.step == loop.total if self.keep is None else self._is_cut(loop)

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        edges = self.counts[-1][1]
        others = count_others(loop.network, (*self.edges, _EDGES))
        found: dict[str, float] = {"edges": edges, "nonzero": others + edges}
        return found if self.method.by == "dnw" else {**found, "strength": 0.0 if self._is_cut(loop) else self.lam}

    def state(self) -> dict[str, Any]:
        return {"lam": self.lam, "counts": self.counts, "masks": self.masks}

    def load(self, state: Mapping[str, Any]) -> None:
        self.lam = state["lam"]
        self.masks = {n: mask.to(self.network.get_parameter(n).dtype) for n, mask in state["masks"].items()}
        self.counts = [list(each) for each in state["counts"]]

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        """Edges as weights, without what they were made of."""
        plain = self.context.copy()
        trained = dict((*network.named_parameters(), *network.named_buffers())) | self._seen(network)
        with torch.no_grad():
            for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
                tensor.copy_(trained[name])
        return plain

    def plan(self, context: Context) -> Plan:
        """Masks of the edges that are zero."""
        weights = {name: context.weight(name) for name in self.edges}
        notes: dict[str, dict[str, Any]] = {}
        for name, weight in weights.items():
            nearly = int(((weight != 0) & (weight.abs() < _NEARLY)).sum())
            kept = {"weights": weight.numel(), "kept_weights": count([weight])}
            notes[name] = {**kept, f"of them below {_NEARLY:g}": nearly}
        if count(weights.values()) == self.size:
            notes[self.edges[0]]["warning"] = "no edge became zero: a larger --lam, more --epochs, or --keep"
        figure = by_epoch("edges", f"Edges that are not zero, of {self.size:,}", "edges", self.counts)
        return Plan(masks={name: weight != 0 for name, weight in weights.items()}, notes=notes, figures=(figure,))

    def _parameterise(self) -> None:
        """Put what makes edges of parameters into the graph. What is zero already stays zero."""
        weights = self._weights(self.network)
        if self.method.by == "ds":
            dims = [self.dims[name] for name in self.edges]
            # A matrix keeps an edge; an output may lose all of its own
            made = Thresholded(list(weights.values()), dims, self.method.group == "matrix", self.method.rectified)
            read_all_through(self.network, self.edges, _EDGES, made, given=False)
        elif self.method.by == "dnw":
            read_all_through(self.network, self.edges, _EDGES, Strongest(weights.values()), given=True)
        else:
            self.masks = {name: (weight.detach() != 0).to(weight.dtype) for name, weight in weights.items()}

    def _weights(self, network: fx.GraphModule) -> dict[str, Tensor]:
        """The parameters that edges are, or come from; those of ``ds`` come from no parameter of their shape."""
        return {name: network.get_parameter(name) for name in self.edges}

    def _seen(self, network: fx.GraphModule) -> dict[str, Tensor]:
        """The edges by weight, as the network reads them."""
        with torch.no_grad():
            if self.method.by == "proximal":
                return {name: weight.detach() for name, weight in self._weights(network).items()}
            given = self._weights(network).values() if self.method.by == "dnw" else ()
            return dict(zip(self.edges, network.get_submodule(_EDGES)(*given), strict=True))

    def _kept(self, network: fx.GraphModule) -> dict[str, Tensor]:
        """By weight: 0 where an edge is cut, 1 elsewhere."""
        if self.method.by == "proximal":
            self.masks = {n: self.masks[n].to(weight.device) for n, weight in self._weights(network).items()}
            return self.masks
        reader = network.get_submodule(_EDGES)
        assert isinstance(reader, Thresholded | Strongest)
        return dict(zip(self.edges, reader.kept, strict=True))

    def _rank(self, network: fx.GraphModule) -> None:
        """Let the largest weights be the edges."""
        assert self.keep is not None
        kept = self._kept(network)
        for name, mask in self.sizes.largest(self._weights(network), self.keep).items():
            kept[name].copy_(mask)

    def _narrow(self, loop: Loop, keep: float) -> None:
        """Cut the smallest edges, and look whether the norm makes those small that are next."""

        def left(step: int) -> float:
            return annealed(step, loop.total, self.size, max(1, round(keep * self.size)), _MU) / self.size

        every, share = max(1, loop.steps_per_epoch // _PARTS), left(loop.step)
        if share == left(loop.step - 1) or (loop.step % every and not self._is_cut(loop)):
            return
        edges, now = self._seen(loop.network), self._kept(loop.network)
        for name, kept in self.sizes.largest(edges, share).items():
            now[name].mul_(kept)
            if self.method.by == "proximal":
                edges[name].mul_(kept)  # the weight itself
        next_cuts = self.sizes.next_cut(left(loop.step + loop.steps_per_epoch))
        self.lam *= 2 ** ((1 if next_cuts > _HARMLESS else -1) * every / loop.steps_per_epoch)

    def _step(self, loop: Loop) -> None:
        """A proximal step after that of the optimizer; edges that were cut stay so."""
        step = self.lam * loop.optimizer.param_groups[0]["lr"]
        variant: Literal["printed", "exact"] = "exact" if self.method.norm == "l12-exact" else "printed"
        kept = self._kept(loop.network)
        with torch.no_grad():
            for name, weight in self._weights(loop.network).items():
                if not self._is_cut(loop):
                    near = prox_l1(weight, step)
                    if self.method.norm != "l1":
                        near = prox_l12(weight, step, self.dims[name], variant)
                    weight.copy_(near)
                weight.mul_(kept[name])

    def _is_cut(self, loop: Loop) -> bool:
        """Whether all is cut that a budget takes."""
        return self.keep is not None and 2 * loop.step >= loop.total

    def _count(self, loop: Loop) -> None:
        self.counts.append([loop.epoch, count(self._seen(loop.network).values())])


def _kept_share(method: Wiring, context: Context, weights: Mapping[str, Tensor]) -> float | None:
    """The fraction of the edges that is to stay, where anyone said so."""
    check_one_size(context, method.keep)
    if context.has_budget:
        return 1 - share_of_zeros(context.budget, context.module, weights)
    if method.keep is None and (method.by == "dnw" or method.lam is None):
        return _KEEP
    return method.keep
