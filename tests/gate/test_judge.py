"""Verdicts on hand-made facts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.evaluate import wilson
from compress.gate import Facts, Gate, Judged, Scored, Timed, drop, judge, limit_of


def scored(correct: int, count: int = 100, data: str = "digits") -> Scored:
    return Scored(correct, count, correct / count, *wilson(correct, count), data)


MODEL = Facts("small", 1020, 510, 2040, scored(94), Timed(0.004, 0.5, "onnxruntime", 1, 1))
ORIGINAL = Facts("big", 2000, 1000, 4000, scored(96))
BASELINE = Facts("small", 1000, 500, 2000, scored(95), Timed(0.005, 0.4, "onnxruntime", 1, 1))


def verdict(name: str, value: Any, model: Facts = MODEL, **settings: Any) -> Judged:
    gate = Gate((limit_of(name, value, "gate.toml"),), **settings)
    (judged,) = judge(gate, model, ORIGINAL, BASELINE if gate.baseline else None)
    return judged


BASE: dict[str, Any] = {"baseline": Path("b.json")}


@pytest.mark.parametrize(
    ("name", "met", "broken"),
    [
        ("max_bytes", 1020, 1019),
        ("max_params", 510, 509),
        ("max_macs", 2040, 2039),
        ("max_latency_p50", "4ms", "3.9ms"),
    ],
)
def test_absolute_limits_are_exact(name: str, met: Any, broken: Any) -> None:
    assert verdict(name, met).status == "passed"
    assert verdict(name, broken).status == "failed"
    assert verdict(name, {"limit": broken, "level": "warn"}).status == "warned"


def test_growth_over_the_baseline_is_exact() -> None:
    found = verdict("max_bytes_growth", "2 %", **BASE)
    assert (found.status, found.against, found.found, found.reference) == ("passed", "baseline", 1020, 1000)
    assert found.value == pytest.approx(0.02)
    assert verdict("max_bytes_growth", "1.99 %", **BASE).status == "failed"
    assert verdict("max_params_growth", "2 %", **BASE).status == "passed"
    assert verdict("max_macs_growth", "1 %", **BASE).status == "failed"


def test_without_a_baseline_the_original_is_compared_with() -> None:
    found = verdict("max_bytes_growth", "-49 %")
    assert (found.status, found.against, found.reference) == ("passed", "original", 2000)
    assert verdict("max_bytes_growth", "-50 %").status == "failed"
    with_both = verdict("max_bytes_growth", {"limit": "-49 %", "against": "original"}, **BASE)
    assert (with_both.status, with_both.against) == ("passed", "original")


@given(st.integers(1, 10**12), st.integers(-50, 50))
def test_a_growth_allows_just_what_it_says(size: int, percent: int) -> None:
    largest = size * (100 + percent) // 100
    for found, status in ((largest, "passed"), (largest + 1, "failed")):
        model, whole = replace(MODEL, bytes=found), replace(ORIGINAL, bytes=size)
        (judged,) = judge(Gate((limit_of("max_bytes_growth", f"{percent} %", ""),)), model, whole, None)
        assert judged.status == status


def test_an_accuracy_fails_where_its_whole_interval_does() -> None:
    # 94 of 100: 87.5 to 97.2 % by Wilson
    assert verdict("min_accuracy", 0.94).status == "passed"
    doubtful = verdict("min_accuracy", 0.97)
    assert doubtful.status == "warned" and "interval includes the limit" in doubtful.note
    assert verdict("min_accuracy", 0.98).status == "failed"
    assert verdict("min_accuracy", 0.97, accuracy_rule="point").status == "failed"
    assert verdict("min_accuracy", 0.94, accuracy_rule="point").status == "passed"


def test_the_interval_of_a_drop() -> None:
    # Newcombe (1998), table II, example (a): 56 of 70 and 48 of 80, method 10: 0.0524 to 0.3339
    value, low, high = drop(scored(56, 70), scored(48, 80))
    assert (value, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def paired(both: int, first: int, second: int, none: int) -> tuple[Scored, Scored]:
    """Two models on the same samples: how many both, one or none put right."""
    before = (True,) * (both + first) + (False,) * (second + none)
    after = (True,) * both + (False,) * first + (True,) * second + (False,) * none
    return tuple(replace(scored(sum(r), len(r)), right=r) for r in (before, after))  # type: ignore[return-value]


def test_the_interval_of_pairs_by_hand() -> None:
    before, after = paired(80, 10, 4, 6)
    # phi = (80 * 6 - 10 * 4 - 100 / 2) / sqrt(90 * 10 * 84 * 16)
    phi = 390 / math.sqrt(90 * 10 * 84 * 16)
    (l1, u1), (l2, u2) = wilson(90, 100), wilson(84, 100)
    low = 0.06 - math.sqrt((0.9 - l1) ** 2 - 2 * phi * (0.9 - l1) * (u2 - 0.84) + (u2 - 0.84) ** 2)
    high = 0.06 + math.sqrt((u1 - 0.9) ** 2 - 2 * phi * (u1 - 0.9) * (0.84 - l2) + (0.84 - l2) ** 2)
    assert drop(before, after) == pytest.approx((0.06, low, high))


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda counts: sum(counts) > 0))
def test_pairs_that_err_alike_say_more(counts: tuple[int, int, int, int]) -> None:
    before, after = paired(*counts)
    value, low, high = drop(before, after)
    _, wide_low, wide_high = drop(replace(before, right=()), replace(after, right=()))
    assert low <= value + 1e-12 and value - 1e-12 <= high
    both, first, second, none = counts
    if both * none - first * second >= 0:
        assert wide_low - 1e-12 <= low and high <= wide_high + 1e-12


def test_a_drop_below_original_or_baseline() -> None:
    found = verdict("max_accuracy_drop", "1 %")
    assert (found.status, found.against, found.reference) == ("warned", "original", 0.96)
    assert found.value == pytest.approx(0.02)
    assert verdict("max_accuracy_drop", "2 %", accuracy_rule="point").status == "passed"
    assert verdict("max_accuracy_drop", "1.9 %", accuracy_rule="point").status == "failed"
    assert verdict("max_accuracy_drop", "1 %", accuracy_rule="point", **BASE).status == "passed"  # 95 to 94
    far = replace(MODEL, accuracy=scored(70))
    assert verdict("max_accuracy_drop", "5 %", far).status == "failed"


def test_latency_ratios() -> None:
    found = verdict("max_latency_ratio", 0.5)
    assert (found.status, found.value, found.reference) == ("passed", 0.5, 0.008)
    assert verdict("max_latency_ratio", 0.49).status == "failed"
    over = verdict("max_latency_ratio", 1.25, **BASE)  # 0.5 of the original now, 0.4 then
    assert (over.status, over.against) == ("passed", "baseline") and over.value == pytest.approx(1.25)
    alone = replace(MODEL, latency=Timed(0.004, None, "onnxruntime", 1, 1))
    seconds = verdict("max_latency_ratio", 0.8, alone, **BASE)
    assert (seconds.status, seconds.value) == ("passed", 0.8) and "not timed in turns" in seconds.note


def test_the_code_of_an_original_is_named() -> None:
    """What the report says of it is at hand, and nobody has typed that its code may be run."""
    limit = limit_of("max_latency_ratio", 1, "test")
    model = replace(MODEL, latency=Timed(1, None, "torch", 1, 1))
    with pytest.raises(InputError) as error:
        judge(Gate((limit,)), model, replace(ORIGINAL, arch="models.py:build"), None)
    assert "--arch models.py:build" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("name", "value", "model", "settings", "said", "hint"),
    [
        ("min_accuracy", 0.9, Facts("m"), {}, "accuracy of m is not known", "--data"),
        ("max_latency_p50", "1s", Facts("m"), {}, "latency of m is not known", "the bundle itself"),
        ("max_bytes", 1, Facts("m"), {}, "m does not say its bytes", "the bundle itself"),
        ("max_macs_growth", 0, Facts("m", macs=1), {"baseline": Path("b")}, "says nothing of the macs", "--update"),
        (
            "max_latency_ratio",
            1,
            replace(MODEL, latency=Timed(1, None, "torch", 1, 1)),
            {},
            "the original",
            "--against",
        ),
        ("max_latency_ratio", 1, replace(MODEL, latency=Timed(1, 1, "torch", 1, 1)), BASE, "timed in", "--runtime"),
        ("max_accuracy_drop", 0.1, replace(MODEL, accuracy=scored(9, 10)), {}, "100 samples of digits", "--against"),
        ("max_accuracy_drop", 0.1, replace(MODEL, accuracy=scored(9, 100, "x")), BASE, "of x, which", "--update"),
        ("max_bytes_growth", {"limit": 0, "against": "baseline"}, MODEL, {}, "there is none", "--baseline"),
    ],
)
def test_what_is_not_known_does_not_pass(
    name: str, value: Any, model: Facts, settings: Any, said: str, hint: str
) -> None:
    gate = Gate((limit_of(name, value, "gate.toml"),), **settings)
    baseline = replace(BASELINE, macs=None) if gate.baseline else None
    with pytest.raises(InputError, match=said) as caught:
        judge(gate, model, ORIGINAL, baseline)
    assert name in str(caught.value) and hint in caught.value.hint
