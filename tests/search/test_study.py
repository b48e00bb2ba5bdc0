"""Studies: what is proposed, written down, gone on with and refused. No network; the judge is a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from compress.errors import InputError
from compress.progress import Silent
from compress.search import Choice, Family, Goal, Space, Trial, front, open_study, run, smallest, trials_of

FAMILIES = (Family("robust", ("robust",), 100, 100), Family("sensitive", ("sensitive",), 100, 100))


def size(steps: Sequence[int]) -> float:
    return 1 - sum(steps) / 200


SPACE = Space(FAMILIES, ("plain",), (), size)
GOAL = Goal(floor=0.9, whole=200.0, trials=30)


def judge(choice: Choice) -> Trial:
    """The second family loses accuracy four times as fast."""
    steps = SPACE.steps(choice)
    accuracy = 1 - 0.05 * steps[0] / 100 - 0.2 * steps[1] / 100
    fractions = tuple(step / 100 for step in steps)
    return Trial(0, "", choice.method, fractions, sum(steps), 1, 2, 3, 200 * size(steps), accuracy)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def search(url: str, trials: int, judge: Callable[[Choice], Trial] = judge, seed: int = 0) -> tuple[Trial, ...]:
    study = open_study(url, "s", {"model": "m"})
    return run(study, SPACE, judge, Goal(0.9, 200.0, trials, seed=seed), Silent())


def test_it_is_better_than_the_best_uniform_ratio(storage: str) -> None:
    trials = search(storage, 30)
    assert [t.number for t in trials] == list(range(30))
    assert [t.start for t in trials[:3]] == [f"plain, uniform {p} %" for p in (10, 20, 30)] and not trials[8].start
    uniform, found = smallest(trials[:8], GOAL), smallest(trials, GOAL)
    assert uniform is not None and uniform.fractions == (0.4, 0.4)
    assert found is not None and found.size < uniform.size and (found.accuracy or 0) >= 0.9
    assert found.fractions[0] > found.fractions[1]


def test_what_goes_on_is_what_would_have_been(tmp_path: Path) -> None:
    once, parts = (f"sqlite:///{tmp_path / name}" for name in ("once.db", "parts.db"))
    whole = search(once, 16)
    assert search(parts, 5) == whole[:5]
    asked: list[Choice] = []

    def counting(choice: Choice) -> Trial:
        asked.append(choice)
        return judge(choice)

    assert search(parts, 16, counting) == whole and len(asked) == 11
    assert search(parts, 16, counting) == whole and len(asked) == 11
    other = search(f"sqlite:///{tmp_path / 'other.db'}", 16, seed=1)
    assert other[:8] == whole[:8] and other[8:] != whole[8:]


def test_a_failure_is_written_down_and_the_search_goes_on(storage: str) -> None:
    def fragile(choice: Choice) -> Trial:
        if choice.keep < 0.6:
            raise ValueError("no kernel\nfor this width")
        return judge(choice)

    trials = search(storage, 12, fragile)
    failed = [t for t in trials if t.accuracy is None]
    assert len(trials) == 12 and 4 <= len(failed) < 12
    assert {t.reason for t in failed} == {"ValueError: no kernel"}
    assert failed[0].start == "plain, uniform 50 %" and trials_of(open_study(storage, "s", {"model": "m"})) == trials


def test_what_is_cut_off_is_made_again(storage: str) -> None:
    def interrupted(choice: Choice) -> Trial:
        if choice.keep < 0.75:
            raise KeyboardInterrupt
        return judge(choice)

    with pytest.raises(KeyboardInterrupt):
        search(storage, 12, interrupted)
    assert len(trials_of(open_study(storage, "s", {"model": "m"}))) == 2
    trials = search(storage, 12)
    assert len(trials) == 12
    assert sorted(t.start for t in trials if t.start) == [f"plain, uniform {p} %" for p in range(10, 90, 10)]


def test_what_a_killed_process_was_judging_is_made_again(storage: str) -> None:
    assert [t.start for t in search(storage, 1)] == ["plain, uniform 10 %"]
    assert open_study(storage, "s", {"model": "m"}).ask().user_attrs["start"] == "plain, uniform 20 %"  # never told
    trials = search(storage, 12)
    assert len(trials) == 12
    assert sorted(t.start for t in trials if t.start) == [f"plain, uniform {p} %" for p in range(10, 90, 10)]


def test_time_can_be_up(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("compress.search.study.time.monotonic", lambda: float(next(clock)))
    study = open_study(storage, "s", {})
    assert len(run(study, SPACE, judge, Goal(0.9, 200.0, 30, timeout=3.5), Silent())) == 3


def test_a_study_of_another_search_is_refused(storage: str) -> None:
    open_study(storage, "s", {"model": "abc", "seed": 0})
    open_study(storage, "s", {"model": "abc", "seed": 0})
    open_study(storage, "t", {"model": "abc", "seed": 1})
    with pytest.raises(InputError, match=r"study 's' .* another search \(seed: 0 there, 1 here\)"):
        open_study(storage, "s", {"model": "abc", "seed": 1})


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "odbc://x"])
def test_a_storage_that_cannot_be_opened(url: str) -> None:
    with pytest.raises(InputError, match="--storage"):
        open_study(url, "s", {})


def test_several_methods_are_chosen_from(storage: str) -> None:
    both = Space(FAMILIES, ("one", "two"), (), size)
    trials = run(open_study(storage, "s", {}), both, judge, Goal(0.9, 200.0, 20), Silent())
    assert [t.method for t in trials[:16]] == ["one"] * 8 + ["two"] * 8
    assert {t.method for t in trials[16:]} <= {"one", "two"}


def trial(number: int, size: float, accuracy: float | None, units: int = 1) -> Trial:
    return Trial(number, "", "m", (), units, 0, 0, 0, size, accuracy)


def test_the_front_and_the_smallest() -> None:
    trials = (
        *(trial(0, 50, 0.95), trial(1, 40, 0.90), trial(2, 40, 0.92), trial(3, 60, 0.95), trial(4, 70, 0.96)),
        *(trial(5, 10, None), trial(6, 45, 0.91), trial(7, 200, 1.0, units=0)),
    )
    assert [t.number for t in front(trials)] == [2, 0, 4]
    best = smallest(trials, GOAL)
    assert best is not None and best.number == 2
    assert smallest(trials, Goal(0.97, 200.0, 8)) is None


def test_values_are_in_the_order_of_what_is_asked_for() -> None:
    ordered = [trial(0, 10, 0.9), trial(1, 150, 0.99), trial(2, 20, 0.89), trial(3, 190, 0.2), trial(4, 1, 0.1)]
    values: list[Any] = [GOAL.value(t) for t in ordered]
    assert values == sorted(values) and math.isclose(values[0], 0.05)
