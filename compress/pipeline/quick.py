"""A latency budget: planned on measured tables of layers, then exported and timed in the runtime it is for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import fx

from compress.budget import Budget
from compress.errors import InputError
from compress.graph import slice_graph
from compress.latency import meet, tables
from compress.latency.rounds import Removed
from compress.latency.table import LatencyModel
from compress.pipeline.training import state_folder
from compress.plan import Plan
from compress.plugin import Context
from compress.progress import Progress
from compress.recover import StateFile
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
    budget = Budget("latency", MICRO * model.seconds(context.budget.value))
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

    def fit(limit: float) -> Plan:
        aimed = context.changed(budget=Budget("latency", MICRO * limit))
        found = plan(aimed)
        context.memo.update(aimed.memo)  # what was scored for one aim serves the next
        return found

    def cut(removed: Removed) -> fx.GraphModule:
        return slice_graph(context.coupling, context.coupling.alive(removed))

    return meet(model, value, fit, cut, progress=progress)


@dataclass(frozen=True)
class Timed:
    """What a latency budget came to, kept beside the state of a training: timed again, it would be another network."""

    budget: Budget
    removed: Removed

    def keep(self, request: PruneRequest) -> None:
        """Write it down, where a training follows."""
        if request.training is None:
            return
        path = _beside(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        removed = {name: np.asarray(units).tolist() for name, units in self.removed.items()}
        path.write_text(json.dumps({"microseconds": self.budget.value, "removed": removed}), "utf-8")

    @staticmethod
    def read(request: PruneRequest) -> Timed | None:
        """What an interrupted run of the same command found; None without one.

        Raises:
            InputError: Its file is damaged.
        """
        path = _beside(request)
        if not request.running.resume or not path.is_file():
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
            removed = {name: np.asarray(units, dtype=np.int64) for name, units in found["removed"].items()}
            return Timed(Budget("latency", float(found["microseconds"])), removed)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path} is damaged: {error}", "leave out --resume to start anew") from error

    @staticmethod
    def forget(request: PruneRequest) -> None:
        """Delete it, and its folder where that holds nothing else."""
        path = _beside(request)
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    @staticmethod
    @contextlib.contextmanager
    def needed(request: PruneRequest) -> Iterator[None]:
        """Through a training and the writing of its result: it goes unless there is a state that may be resumed."""
        try:
            yield
        except BaseException:
            if not StateFile(_beside(request).parent, {}).exists:
                Timed.forget(request)
            raise
        Timed.forget(request)


def _beside(request: PruneRequest) -> Path:
    return state_folder(request.output) / "units.json"
