"""The study of a search: its trials in a storage that outlives the process and that several processes may share.

Trials are proposed by TPE (Bergstra et al., 2011), as Optuna has it. There is one value to be made small: the share of
the objective that is left where the accuracy holds the floor, else one plus what is missing. Only the order of values
counts for TPE, and this is the order of what was asked for: the smallest of those that hold, and before there are any,
the nearest to the floor. A second objective would spread the trials over accuracies that nobody asked for; the front of
size and accuracy is drawn from all trials anyway.

Each trial has random numbers of its own, told by the seed and its number. So a search that ends and goes on makes the
trials that it would have made in one go, and processes that share a study do not propose the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from compress.errors import InputError
from compress.progress import Progress
from compress.recover.samples import stream
from compress.search.space import Choice, Space

if TYPE_CHECKING:
    import optuna

_IDENTITY, _OUTCOME, _START, _CUT_OFF = "identity", "outcome", "start", "cut off"


@dataclass(frozen=True)
class Trial:
    """One candidate that was tried.

    Attributes:
        number: In the study.
        start: What it is where it was not proposed by TPE: "dependency, uniform 30 %".
        method: Which scores decided the units.
        fractions: By family the share of its units that went.
        units: How many units went.
        macs, params, bytes: Of the network that is left.
        size: The objective of that network.
        accuracy: On the validation samples; None where the candidate failed.
        reason: Why it failed.
    """

    number: int
    start: str
    method: str
    fractions: tuple[float, ...] = ()
    units: int = 0
    macs: int = 0
    params: int = 0
    bytes: int = 0
    size: float = 0.0
    accuracy: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Goal:
    """What a search wants.

    Attributes:
        floor: The lowest accuracy that holds.
        whole: The objective of the network with nothing cut.
        trials: How many trials the study shall have in all.
        timeout: Seconds after which no further trial begins; None for no limit.
        seed: Of the proposals.
    """

    floor: float
    whole: float
    trials: int
    timeout: float | None = None
    seed: int = 0

    def holds(self, trial: Trial) -> bool:
        """Whether a candidate is accurate enough."""
        return trial.accuracy is not None and trial.accuracy >= self.floor - 1e-9

    def value(self, trial: Trial) -> float:
        """What TPE makes small."""
        if self.holds(trial):
            return trial.size / self.whole
        return 1.0 + self.floor - (trial.accuracy or 0.0)


Judge = Callable[[Choice], Trial]


def open_study(url: str, name: str, identity: Mapping[str, Any]) -> optuna.Study:
    """The study of that name in a storage, begun if it is not there.

    Args:
        url: Of the storage: ``sqlite:///search.db``, or any that Optuna takes.
        name: Of the study.
        identity: What its trials depend on, as plain JSON values.

    Raises:
        InputError: The storage cannot be opened, or the study there is that of another search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        study = optuna.create_study(storage=url, study_name=name, load_if_exists=True, direction="minimize")
        known = study.user_attrs.get(_IDENTITY)
        if known is None:
            study.set_user_attr(_IDENTITY, json.loads(json.dumps(identity)))
            return study
    except Exception as error:  # drivers of databases raise what they like
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"--storage {url}: {reason}", "a URL such as sqlite:///search.db") from error
    wanted = json.loads(json.dumps(identity))
    other = [key for key in wanted if known.get(key) != wanted[key]]
    if other:
        told = "; ".join(f"{key}: {_short(known.get(key))} there, {_short(wanted[key])} here" for key in other[:3])
        raise InputError(
            f"study {name!r} in {url} is that of another search ({told})",
            "choose another --study, --storage or --output",
        )
    return study


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def trials_of(study: optuna.Study) -> tuple[Trial, ...]:
    """All trials that have ended, in order; those that were cut off do not count."""
    found = []
    for each in study.get_trials(deepcopy=False):
        if _OUTCOME in each.user_attrs and each.state.is_finished():
            known = each.user_attrs[_OUTCOME]
            found.append(Trial(**{**known, "fractions": tuple(known["fractions"])}))
    return tuple(found)


def run(study: optuna.Study, space: Space, judge: Judge, goal: Goal, progress: Progress) -> tuple[Trial, ...]:
    """Make trials until the study has as many as wanted, or time is up.

    A candidate that fails is recorded with the reason, and the search goes on. Trials that others add to the same study
    count; each process may end with one more than wanted.
    """
    _begin(study, space)
    done = len(trials_of(study))
    for _ in progress.track(_turns(study, goal), "trials", max(0, goal.trials - done)):
        _turn(study, space, judge, goal)
    return trials_of(study)


def _turns(study: optuna.Study, goal: Goal) -> Iterator[None]:
    """One for each trial that is still to be made."""
    end = None if goal.timeout is None else time.monotonic() + goal.timeout
    while len(trials_of(study)) < goal.trials and (end is None or time.monotonic() < end):
        yield


def _begin(study: optuna.Study, space: Space) -> None:
    """Queue the first candidates, those that are not there yet.

    One that runs does not count: nothing tells whether its process still lives, and to judge it twice costs less than
    to miss it.
    """
    import optuna

    known = study.get_trials(deepcopy=False)
    running = optuna.trial.TrialState.RUNNING
    there = {each.user_attrs.get(_START) for each in known if _CUT_OFF not in each.user_attrs and each.state != running}
    for start, choice in space.first().items():
        if start not in there:
            study.enqueue_trial(_numbers(choice, space), user_attrs={_START: start})


def _numbers(choice: Choice, space: Space) -> dict[str, Any]:
    values: dict[str, Any] = {"keep": choice.keep, "follow": choice.follow}
    values |= {f"part {i}": value for i, value in enumerate(choice.spread)}
    known = {name: values[name] for name in space.dimensions()}
    return {**known, "method": choice.method} if len(space.methods) > 1 else known


def _turn(study: optuna.Study, space: Space, judge: Judge, goal: Goal) -> None:
    """One trial: propose, judge, write down."""
    import optuna

    trial = study.ask()
    study.sampler = optuna.samplers.TPESampler(seed=stream(goal.seed, "trial", trial.number) % 2**32)
    method = trial.suggest_categorical("method", space.methods) if len(space.methods) > 1 else space.methods[0]
    bounds = space.dimensions()
    values = {name: trial.suggest_float(name, *ends, log=name == "keep") for name, ends in bounds.items()}
    blank = Trial(trial.number, trial.user_attrs.get(_START, ""), method)
    try:
        made = replace(judge(space.choice(values, method)), number=blank.number, start=blank.start)
    except Exception as error:  # whatever a kernel or a rule raises is this candidate's failure alone
        lines = f"{type(error).__name__}: {error}".splitlines()
        made = replace(blank, reason=lines[0])
    except BaseException:
        trial.set_user_attr(_CUT_OFF, True)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise
    trial.set_user_attr(_OUTCOME, asdict(made))
    if made.accuracy is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, goal.value(made))


def smallest(trials: tuple[Trial, ...], goal: Goal) -> Trial | None:
    """The smallest that holds the floor, of equals the most accurate; None where none does."""
    found = [each for each in trials if each.units and goal.holds(each)]
    return min(found, key=lambda t: (t.size, -(t.accuracy or 0.0), t.number), default=None)


def front(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Smaller networks that no other beats in size and accuracy, the smallest first; of equals the first found."""
    kept: list[Trial] = []
    judged = [each for each in trials if each.units and each.accuracy is not None]
    for each in sorted(judged, key=lambda t: (t.size, -(t.accuracy or 0.0), t.number)):
        if not kept or (each.accuracy or 0.0) > (kept[-1].accuracy or 0.0):
            kept.append(each)
    return tuple(kept)
