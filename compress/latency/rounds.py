"""A latency budget: what to remove is found on predictions, and what is left is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compress.errors import ModelError
from compress.latency.networks import in_turns, running
from compress.latency.table import LatencyModel
from compress.measure import LatencyPair
from compress.plan import Plan
from compress.progress import Progress, Silent
from compress.wording import plural

Removed = Mapping[str, NDArray[np.int64]]

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


def meet(
    model: LatencyModel,
    budget: float,
    fit: Callable[[float], Plan],
    cut: Callable[[Removed], nn.Module],
    *,
    progress: Progress | None = None,
) -> Plan:
    """The plan of a network that runs within a budget on the target.

    `fit` works on predictions. What it leaves is built, run on the target in turns with the whole network, and the
    limit that `fit` is given next is corrected by how far prediction and measurement were apart; three rounds at most.
    Of the networks within the budget the slowest is taken, as it has kept most.

    Args:
        model: Of the whole network, from `tables`.
        budget: Below 1 the fraction of the whole network's latency that may stay, judged side by side; else
            microseconds.
        fit: From a limit in seconds to the plan with which ``model.predict`` of what is left is just within the limit.
            It may raise ModelError where even its smallest network is over the limit.
        cut: From the units that go, by group, to the network without them.
        progress: Is told how each round ended.

    Raises:
        ModelError: After three rounds, or where `fit` cannot go further, no network was within the budget; the message
            says how near it came. Or `fit` cannot go as far as the budget itself, or a network cannot be expressed on
            the target.
    """
    limit = model.seconds(budget)
    aim, best = limit, None
    rounds, tried = list[Round](), list[Plan]()
    with running(model.coupling.program.module, model.inputs, model.target, model.threads) as whole:
        for _ in range(ROUNDS):
            try:
                plan = fit(aim)
            except ModelError:
                if not rounds:  # else it is the corrected aim that is out of reach, which the user did not ask for
                    raise
                break
            if any(_same(plan.removed, each.removed) for each in tried):  # no width lies between
                break
            tried.append(plan)
            with running(cut(plan.removed), model.inputs, model.target, model.threads) as run:
                speed = in_turns(whole, run, model.inputs, model.target, model.threads)
            found = counted(speed, model.dense, budget)
            rounds.append(Round(aim, model.predict(model.coupling.alive(plan.removed)), found))
            _tell(progress or Silent(), rounds[-1], limit)
            if found <= limit and (best is None or found > best[0]):
                best = (found, plan)
            if found <= limit and (found >= ENOUGH * limit or not plan.removed):
                break
            aim = _next(rounds[-1], limit)
    if best is None:
        raise _missed(rounds, limit)
    return best[1]


def counted(speed: LatencyPair, dense: float, budget: float) -> float:
    """Seconds that count against a budget: of a fraction the ratio that was measured in turns, which drifts less.

    Args:
        speed: The whole network and what is left of it, timed in turns.
        dense: Seconds of the whole network, of which a budget below 1 is a fraction.
        budget: As the user gave it.
    """
    return dense / speed.speedup if budget < 1 else speed.after.p50


def _same(one: Removed, other: Removed) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(units, other[name]) for name, units in one.items())


def _next(last: Round, limit: float) -> float:
    """The limit for predictions at which the last round would have hit the middle of what is enough."""
    return (1 + ENOUGH) / 2 * limit * last.predicted / last.measured


def _tell(progress: Progress, last: Round, limit: float) -> None:
    progress.detail(
        f"latency {1e3 * last.measured:.3f} ms, predicted {1e3 * last.predicted:.3f} ms, limit {1e3 * limit:.3f} ms"
    )


def _missed(rounds: list[Round], limit: float) -> ModelError:
    nearest = min(each.measured for each in rounds)
    tries = plural(len(rounds), "round")
    return ModelError(
        f"--latency {1e3 * limit:.3g} ms was not met in {tries}: the nearest network takes {1e3 * nearest:.3g} ms",
        "allow a little more, or measure on a machine that does nothing else",
    )
