"""What a plugin sees and what it must offer.

A plugin is a frozen dataclass in one file; its fields are its options. Three kinds, by entry-point group:

``compress.criteria``  ``score(group, context) -> Tensor`` of shape (units,), higher means keep; it may offer
                       ``score_weights(name, weight, context) -> Tensor`` of the weight's shape as well
``compress.pruners``   ``plan(context) -> Plan``
``compress.retrain``   ``start(context) -> Session``, beside the steps of a training that ends in a plan
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from compress.budget import (
    Allocation,
    Budget,
    Scores,
    Size,
    everything,
    fit,
    fit_layers,
    matched,
    prunable,
    reach,
    size_of,
)
from compress.calibration.measurements import Measurements
from compress.calibration.normal import add_symmetric
from compress.calibration.problems import Gram, Problem
from compress.errors import InputError, ModelError, PluginError
from compress.figures import Figure, HeatMap, Panel, Series
from compress.fsa import FSASettings, compression_factor, select_features
from compress.graph import Cluster, Coupling, Group, Member, clusters, insert_module, mixing_matrices
from compress.graph.calls import bind, op_name
from compress.graph.features import selections
from compress.graph.tensors import with_tensors
from compress.methods import (
    Criterion,
    Granularity,
    Pruner,
    WeightCriterion,
    granularities,
    make_plan,
    make_scores,
    no_meaning,
)
from compress.nn.adjacency import LearnedAdjacency, relationship_score
from compress.plan import Plan
from compress.progress import Progress, Silent
from compress.retrain import Loop, Retrain, Session
from compress.schedules import annealed
from compress.sparsity import fraction as share_of_zeros
from compress.sparsity import weakest
from compress.trainable import Trainable
from compress.weights import Weights

__all__ = [
    "Allocation", "Budget", "Context", "Coupling", "Criterion", "FSASettings", "Figure", "Gram", "Group", "HeatMap",
    "InputError", "LearnedAdjacency", "Loop", "Member", "ModelError", "Panel", "Plan", "Problem", "Pruner", "Retrain",
    "Series", "Session", "WeightCriterion", "add_symmetric", "annealed", "bind", "compression_factor", "everything",
    "granularities", "insert_module", "make_plan", "make_scores", "matched", "mixing_matrices", "no_meaning", "op_name",
    "option", "relationship_score", "select_features", "share_of_zeros", "size_of",
]  # fmt: skip


def option(default: Any, help: str) -> Any:
    """A field of a plugin that users can set as ``--name VALUE``.

    Args:
        default: Value when the user says nothing; immutable.
        help: One line for ``compress methods NAME``.
    """
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Context(Weights, Measurements, Trainable):
    """A network under analysis, as plugins see it. Nothing in it may be changed.

    Attributes:
        coupling: The analysed network.
        budget: How small the result is to be.
        granularity: ``unit`` - whole units go; ``weight`` - single weights are zeroed, dead units go.
        only, exclude: Globs on layer names.
        seed: Seed for everything random.
        data: The user's data, with ``train`` (None or ``inputs`` and ``targets``); None if the user gave none.
        progress: Is told how far a long look at data is.
        allocation: How the budget is spread over the layers, and what widths are rounded to.
        size: What the budget counts, by what stays; None for the size that belongs to its kind.
        has_budget: Whether the user named the budget; a method that decides by itself may, where it is False.
    """

    coupling: Coupling
    budget: Budget = field(default_factory=Budget)
    granularity: Granularity = "unit"
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    data: Any = None
    progress: Progress = field(default_factory=Silent)
    allocation: Allocation = field(default_factory=Allocation)
    size: Size | None = None
    has_budget: bool = True

    def changed(self, **fields: Any) -> Context:
        """The same context with other fields; what was noted and found on the way stays with it."""
        made = dataclasses.replace(self, **fields)
        made.memo.update(self.memo)
        made.notes.update(self.notes)
        return made

    def on(self, network: fx.GraphModule) -> Context:
        """The same context with the tensors that another network has under the same names, copied to the CPU."""
        return dataclasses.replace(self, coupling=with_tensors(self.coupling, network))

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
    def reach(self) -> Mapping[str, float]:
        """By group the largest fraction of its units that the budget can take, whatever the scores."""
        steps = reach(self.coupling, self.clusters, self.budget, self.allocation)
        return {name: n / c.steps for c, n in zip(self.clusters, steps, strict=True) for name in c.groups}

    @property
    def input_groups(self) -> tuple[Group, ...]:
        """Groups of input features, with --prune-inputs; their first member is the buffer that lists the features."""
        chosen = selections(self.module)
        return tuple(g for g in self.groups if g.members[0].tensor in chosen)

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
        checked = self.checked(scores)
        removed = fit(self.coupling, self.clusters, checked, self.budget, self.allocation, self.size)
        return Plan(removed, notes=self.notes)

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
        masks = weakest(scores, weights, share_of_zeros(self.budget, self.module, weights), together)
        notes = {}
        for name, weight in weights.items():
            alive = weight != 0
            notes[name] = {"weights": int(alive.sum()), "kept_weights": int((alive & masks[name]).sum())}
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
        scores, round_to = self._surviving_mass(masks), self.allocation.round_to
        removed = fit_layers(self.coupling, self.clusters, scores, shares, round_to)
        # Of the weights none becomes zero: how many would survive is the layer's budget, and told as that
        told = {name: {k: v for k, v in note.items() if k != "kept_weights"} for name, note in notes.items()}
        for name, share in shares.items():
            told.setdefault(name, {})["share of weights"] = share
        return Plan(removed, notes=told)

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

    def checked(self, scores: Mapping[str, Tensor]) -> Scores:
        """Scores of all groups, (units,) each, as float64.

        Raises:
            PluginError: A score is missing, of the wrong shape or not a number.
        """
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
