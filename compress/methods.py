"""What a method must offer, and how the core asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from compress.budget import Scores
from compress.errors import ModelError, PluginError
from compress.graph import Group
from compress.plan import Plan
from compress.retrain import Retrain, guarded

if TYPE_CHECKING:
    from compress.plugin import Context

Granularity = Literal["unit", "weight"]


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
    return ("unit", "weight") if isinstance(method, (Pruner, Retrain, WeightCriterion)) else ("unit",)


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
    with guarded(method):
        return _planned(method, context)


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
    return context.plan_from_scores(_scores(method, context))


def make_scores(method: Criterion, context: Context) -> Scores:
    """What a criterion says of every group, checked: by group, (units,) in float64; higher means keep.

    Raises:
        PluginError: The criterion breaks the contract or fails.
    """
    with guarded(method):
        return context.checked(_scores(method, context))


def _scores(method: Criterion, context: Context) -> dict[str, Tensor]:
    scores: dict[str, Tensor] = {}
    for group in context.groups:
        scores[group.name] = method.score(group, context)
    return scores
