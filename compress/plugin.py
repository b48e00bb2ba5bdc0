"""What a plugin sees and what it must offer.

A plugin is a frozen dataclass in one file; its fields are its options. Three kinds, by entry-point group:

``compress.criteria``  ``score(group, context) -> Tensor`` of shape (units,), higher means keep; it may offer
                       ``score_weights(name, weight, context) -> Tensor`` of the weight's shape as well
``compress.pruners``   ``plan(context) -> Plan``
``compress.retrain``   trains the network and ends in a plan
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from compress.budget import Budget, Scores, fit, fit_layers, prunable
from compress.calibration.measurements import Measurements
from compress.calibration.problems import Problem
from compress.errors import CompressError, ModelError, PluginError
from compress.figures import Figure, Series
from compress.graph import Cluster, Coupling, Group, clusters
from compress.plan import Plan
from compress.progress import Progress, Silent
from compress.sparsity import fraction, weakest
from compress.weights import Weights

__all__ = [
    "Budget", "Context", "Criterion", "Figure", "Group", "ModelError", "Plan", "Problem", "Pruner", "Series",
    "WeightCriterion", "option",
]  # fmt: skip

Granularity = Literal["unit", "weight"]


def option(default: Any, help: str) -> Any:
    """A field of a plugin that users can set as ``--name VALUE``.

    Args:
        default: Value when the user says nothing; immutable.
        help: One line for ``compress methods NAME``.
    """
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Context(Weights, Measurements):
    """A network under analysis, as plugins see it. Nothing in it may be changed.

    Attributes:
        coupling: The analysed network.
        budget: How small the result is to be.
        granularity: ``unit`` - whole units go; ``weight`` - single weights are zeroed, dead units go.
        only, exclude: Globs on layer names.
        seed: Seed for everything random.
        data: The user's data, with ``train`` (None or ``inputs`` and ``targets``); None if the user gave none.
        progress: Is told how far a long look at data is.
    """

    coupling: Coupling
    budget: Budget = field(default_factory=Budget)
    granularity: Granularity = "unit"
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    data: Any = None
    progress: Progress = field(default_factory=Silent)

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """What may shrink, groups that must stay balanced together."""
        return prunable(self.coupling, clusters(self.coupling), self.only, self.exclude)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups that may shrink; none of them reaches into a frozen parameter, unless that is allowed."""
        names = {name for cluster in self.clusters for name in cluster.groups}
        return tuple(g for g in self.coupling.groups if g.name in names)

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """Where a criterion may keep between groups what it has found for all of them; its key is the criterion."""
        return {}

    @cached_property
    def notes(self) -> dict[str, dict[str, Any]]:
        """By group or layer what a criterion has to say; goes into the report. ``warning`` is shown at once."""
        return {}

    def generator(self) -> torch.Generator:
        """A fresh random generator, seeded."""
        return torch.Generator().manual_seed(self.seed)

    def plan_from_scores(self, scores: Mapping[str, Tensor]) -> Plan:
        """The plan that removes the lowest scores of every group until the budget is met.

        Args:
            scores: By group name a tensor of shape (units,), higher means keep.

        Raises:
            PluginError: A score is missing, of the wrong shape or not a number.
        """
        return Plan(fit(self.coupling, self.clusters, self._checked(scores), self.budget), notes=self.notes)

    def plan_from_weight_scores(self, scores: Mapping[str, Tensor], together: bool = False) -> Plan:
        """The plan that zeroes the weights with the lowest scores until the budget is met.

        Args:
            scores: By weight name a tensor of its shape, higher means keep.
            together: Whether all layers compete; otherwise each loses the same share.

        Raises:
            ModelError: The budget is none of ratio or parameters, or cannot be met.
            PluginError: A score is of the wrong shape or not a number.
        """
        weights = {name: self.weight(name) for name in scores}
        for name, score in scores.items():
            if score.shape != weights[name].shape:
                shapes = f"{tuple(score.shape)}, need {tuple(weights[name].shape)}"
                raise PluginError(f"scores of {name} have shape {shapes}")
            if not torch.isfinite(score).all():
                raise PluginError(f"scores of {name} are not finite")
        masks = weakest(scores, weights, fraction(self.budget, self.module, weights), together)
        notes = {n: {"weights": m.numel(), "kept_weights": int(m.sum())} for n, m in masks.items()}
        return self.plan_from_masks(masks, {**notes, **self.notes})

    def plan_from_masks(
        self, masks: Mapping[str, Tensor], notes: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Plan:
        """The plan for weights that survive (True), by granularity.

        ``weight`` keeps the masks as they are. ``unit`` takes the share of surviving weights of each layer as the
        layer's budget, ranks its units by the L1 mass that survives in them, and removes the lowest until the layer
        fits.

        Raises:
            PluginError: A mask has another shape than its weight.
        """
        for name, mask in masks.items():
            if mask.shape != self.weight(name).shape or mask.dtype != torch.bool:
                raise PluginError(f"mask of {name} must be a bool tensor of shape {tuple(self.weight(name).shape)}")
        notes = notes or {}
        if self.granularity == "weight":
            return Plan(masks=dict(masks), notes=notes)
        shares = {name: float(mask.float().mean()) for name, mask in masks.items()}
        removed = fit_layers(self.coupling, self.clusters, self._surviving_mass(masks), shares)
        return Plan(removed, notes=notes)

    def _surviving_mass(self, masks: Mapping[str, Tensor]) -> Scores:
        scores = {}
        for group in self.groups:
            mass = torch.zeros(group.size, dtype=torch.float64)
            for member in group.members:
                if member.tensor in masks:
                    weight = (self.weight(member.tensor) * masks[member.tensor]).double().abs()
                    mass += member.values(weight).reshape(group.size, -1).sum(1)
            scores[group.name] = mass.numpy()
        return scores

    def _checked(self, scores: Mapping[str, Tensor]) -> Scores:
        result = {}
        for group in self.groups:
            if group.name not in scores:
                raise PluginError(f"no scores for group {group.name}")
            values = torch.as_tensor(scores[group.name]).detach().double().cpu()
            if values.shape != (group.size,):
                raise PluginError(f"scores of {group.name} have shape {tuple(values.shape)}, need ({group.size},)")
            if not torch.isfinite(values).all():
                raise PluginError(f"scores of {group.name} are not finite")
            result[group.name] = np.asarray(values)
        return result


@runtime_checkable
class Criterion(Protocol):
    """Scores the units of one group; the core makes the plan."""

    def score(self, group: Group, context: Context) -> Tensor:
        """Importance of every unit, shape (units,), higher means keep."""
        ...


@runtime_checkable
class WeightCriterion(Protocol):
    """A criterion that can score single weights as well; the core makes the masks.

    An attribute ``layers`` that is "together" lets the weights of all layers compete; otherwise each layer loses the
    same share.
    """

    def score_weights(self, name: str, weight: Tensor, context: Context) -> Tensor:
        """Importance of every value of one layer's weight, of its shape, higher means keep."""
        ...


@runtime_checkable
class Pruner(Protocol):
    """Decides by itself what stays."""

    def plan(self, context: Context) -> Plan:
        """Units to remove, weights to mask, or both."""
        ...


def granularities(method: Any) -> tuple[Granularity, ...]:
    """At which granularities a method works: as its class says, or by what it offers."""
    said: tuple[Granularity, ...] | None = getattr(method, "granularities", None)
    if said is not None:
        return said
    return ("unit", "weight") if isinstance(method, (Pruner, WeightCriterion)) else ("unit",)


def no_meaning(method: Any) -> tuple[str, str]:
    """Why a method cannot score single weights, and what to do instead."""
    name = type(method).__name__.lower()
    return (
        f"{name} scores whole units and has no meaning for single weights",
        "leave out --granularity weight, or choose a weight-level method such as magnitude or tetris",
    )


def make_plan(method: Criterion | Pruner, context: Context) -> Plan:
    """The plan of a criterion or pruner.

    Raises:
        ModelError: The network has nothing to prune.
        PluginError: The method breaks the contract or fails.
    """
    try:
        return _planned(method, context)
    except CompressError:
        raise
    except Exception as error:  # a plugin is foreign code and may raise anything
        reason = f"{type(error).__name__}: {error}"
        hint = "run again with --debug for the traceback"
        raise PluginError(f"{type(method).__name__} failed: {reason}", hint) from error


def _planned(method: Criterion | Pruner, context: Context) -> Plan:
    if isinstance(method, Pruner):
        plan = method.plan(context)
        if not isinstance(plan, Plan):
            raise PluginError(f"{type(method).__name__}.plan returned {type(plan).__name__}, not a Plan")
        return plan
    if not isinstance(method, Criterion):
        raise PluginError(f"{type(method).__name__} offers neither score() nor plan()")
    if context.granularity == "weight":
        if not isinstance(method, WeightCriterion):
            raise ModelError(*no_meaning(method))
        single = {n: method.score_weights(n, weight, context) for n, weight in context.layers().items()}
        return context.plan_from_weight_scores(single, getattr(method, "layers", "each") == "together")
    scores: dict[str, Tensor] = {}
    for group in context.groups:
        scores[group.name] = method.score(group, context)
    return context.plan_from_scores(scores)
