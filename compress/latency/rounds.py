"""A latency budget: what to remove is found on predictions, and what is left is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compress.errors import ModelError
from compress.latency.networks import in_turns, running
from compress.latency.table import LatencyModel
from compress.measure import LatencyPair
from compress.progress import Progress, Silent

Removed = Mapping[str, NDArray[np.int64]]
Module = TypeVar("Module", bound=nn.Module)

ROUNDS = 3
ENOUGH = 0.95  # of the limit; a network that is faster than that has lost more than it had to


@dataclass(frozen=True)
class Round:
    """One try.

    Attributes:
        aim: The limit that was predicted against, in seconds.
        predicted: Seconds, from the tables.
        measured: Seconds, of the real network.
    """

    aim: float
    predicted: float
    measured: float


@dataclass(frozen=True)
class Met(Generic[Module]):
    """A network within its latency budget.

    Attributes:
        removed: Units that went, by group.
        module: What is left.
        speed: The whole network and what is left of it, timed in turns on the target.
        limit: Seconds that were allowed.
        rounds: Every try, the last one last.
    """

    removed: Removed
    module: Module
    speed: LatencyPair
    limit: float
    rounds: tuple[Round, ...]


def meet(
    model: LatencyModel,
    budget: float,
    fit: Callable[[float], Removed],
    cut: Callable[[Removed], Module],
    *,
    progress: Progress | None = None,
) -> Met[Module]:
    """Remove units until the network that is left runs within a budget on the target.

    `fit` works on predictions. What it leaves is built, run on the target in turns with the whole network, and the
    limit that `fit` is given next is corrected by how far prediction and measurement were apart; three rounds at most.
    Of the networks within the budget the slowest is taken, as it has kept most.

    Args:
        model: Of the whole network, from `tables`.
        budget: Below 1 the fraction of the whole network's latency that may stay, judged side by side; else
            microseconds.
        fit: From a limit in seconds to the units that go, by group: those with which ``model.predict`` of what is
            left is just within the limit. It may raise ModelError where even its smallest network is over the limit.
        cut: From these units to the network without them.
        progress: Is told how each round ended.

    Raises:
        ModelError: After three rounds, or where `fit` cannot go further, no network was within the budget; the message
            says how near it came. Or `fit` cannot go as far as the budget itself, or a network cannot be expressed on
            the target.
    """
    limit = model.seconds(budget)
    aim, best = limit, None
    rounds, tried = list[Round](), list[Removed]()
    with running(model.coupling.program.module, model.inputs, model.target, model.threads) as whole:
        for _ in range(ROUNDS):
            try:
                removed = fit(aim)
            except ModelError:
                if not rounds:  # else it is the corrected aim that is out of reach, which the user did not ask for
                    raise
                break
            if any(_same(removed, each) for each in tried):  # no width lies between
                break
            tried.append(removed)
            module = cut(removed)
            with running(module, model.inputs, model.target, model.threads) as run:
                speed = in_turns(whole, run, model.inputs, model.target, model.threads)
            found = _seconds(model, speed, budget)
            rounds.append(Round(aim, model.predict(model.coupling.alive(removed)), found))
            _tell(progress or Silent(), rounds[-1], limit)
            if found <= limit and (best is None or found > best[0]):
                best = (found, removed, module, speed)
            if found <= limit and (found >= ENOUGH * limit or not removed):
                break
            aim = _next(rounds[-1], limit)
    if best is None:
        raise _missed(rounds, limit)
    return Met(*best[1:], limit, tuple(rounds))


def _same(one: Removed, other: Removed) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(units, other[name]) for name, units in one.items())


def _seconds(model: LatencyModel, speed: LatencyPair, budget: float) -> float:
    """What counts against the limit: of a fraction the ratio that was measured in turns, which drifts less."""
    return model.dense / speed.speedup if budget < 1 else speed.after.p50


def _next(last: Round, limit: float) -> float:
    """The limit for predictions at which the last round would have hit the middle of what is enough."""
    return (1 + ENOUGH) / 2 * limit * last.predicted / last.measured


def _tell(progress: Progress, last: Round, limit: float) -> None:
    progress.detail(
        f"latency {1e3 * last.measured:.3f} ms, predicted {1e3 * last.predicted:.3f} ms, limit {1e3 * limit:.3f} ms"
    )


def _missed(rounds: list[Round], limit: float) -> ModelError:
    nearest = min(each.measured for each in rounds)
    tries = "1 round" if len(rounds) == 1 else f"{len(rounds)} rounds"
    return ModelError(
        f"--latency {1e3 * limit:.3g} ms was not met in {tries}: the nearest network takes {1e3 * nearest:.3g} ms",
        "allow a little more, or measure on a machine that does nothing else",
    )
