"""A latency budget: planned on measured tables of layers, then exported and timed in the runtime it is for."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from compress.budget import Budget
from compress.graph import slice_graph
from compress.latency import tables
from compress.latency.rounds import Removed, meet
from compress.latency.table import LatencyModel
from compress.plan import Plan
from compress.plugin import Context
from compress.progress import Progress
from compress.request import PruneRequest

MICRO = 1e6


def with_latency(context: Context, request: PruneRequest, progress: Progress) -> tuple[Context, LatencyModel]:
    """The context with a budget in microseconds, and the tables that predict them.

    Raises:
        InputError: The target is not there, or has no latency.
        ModelError: The network does not run on it.
    """
    progress.step(f"Measuring the model on {request.target}")
    model = tables(context.coupling, request.target, request.settings.threads or 1)
    value = context.budget.value
    budget = Budget("latency", MICRO * model.seconds(value))
    return context.changed(budget=budget, size=lambda alive: MICRO * model.predict(alive)), model


def plan_within(
    value: float, context: Context, model: LatencyModel, plan: Callable[[Context], Plan], progress: Progress
) -> Plan:
    """The plan of a network that runs within a budget.

    Args:
        value: As the user gave it: a fraction of the whole network's latency, or microseconds.
        context, model: From :func:`with_latency`.
        plan: What a method decides in a context.
        progress: Is told of every try.

    Raises:
        ModelError: No network was within the budget.
    """
    made: list[Plan] = []

    def fit(limit: float) -> Removed:
        aimed = context.changed(budget=Budget("latency", MICRO * limit))
        made.append(plan(aimed))
        context.memo.update(aimed.memo)  # what was scored for one aim serves the next
        return made[-1].removed

    def cut(removed: Removed) -> fx.GraphModule:
        return slice_graph(context.coupling, context.coupling.alive(removed))

    best = meet(model, value, fit, cut, progress=progress)
    return next(each for each in made if each.removed is best.removed)
