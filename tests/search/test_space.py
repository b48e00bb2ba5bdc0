"""From numbers to steps: equal weights are one ratio, heavier families lose more, sensitive ones less."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.search import Choice, Family, Space, robustness
from compress.search.space import PARTS


def family(name: str, units: int, steps: int | None = None) -> Family:
    return Family(name, (name,), units, steps or units)


def space(*families: Family, prior: tuple[float, ...] = (), methods: tuple[str, ...] = ("plain",)) -> Space:
    """Of networks whose size is the number of their units."""
    units = sum(f.units for f in families)

    def size(steps: Sequence[int]) -> float:
        return 1 - sum(step / f.steps * f.units for step, f in zip(steps, families, strict=True)) / units

    return Space(families, methods, prior, size)


def test_a_family_is_cut_at_the_nearest_step_and_never_whole() -> None:
    assert [family("a", 4).step(ratio) for ratio in (0.0, 0.1, 0.13, 0.3, 0.375, 0.38, 0.99)] == [0, 0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 0.5, 0.8])
def test_equal_weights_are_one_ratio_for_all(ratio: float) -> None:
    found = space(family("a", 100), family("b", 40), family("c", 64, 8))
    keep = found.size(found.uniform(ratio))
    assert found.steps(Choice("plain", keep, 0.0, (0.0,) * 3)) == found.uniform(ratio)
    assert found.steps(Choice("plain", keep, 0.0, (0.7,) * 3)) == found.uniform(ratio)  # only their relation counts


def test_weights_are_powers_of_what_stays() -> None:
    found = space(family("a", 1000), family("b", 1000))
    steps = found.steps(Choice("plain", 0.5, 0.0, (math.log(3), 0.0)))
    kept = [1 - step / 1000 for step in steps]
    assert sum(kept) / 2 == pytest.approx(0.5, abs=0.002)
    assert kept[0] == pytest.approx(kept[1] ** 3, abs=0.003)


def test_a_prior_is_followed_as_far_as_said() -> None:
    found = space(family("a", 100), family("b", 100), prior=(2.0, 0.5))
    even, half, full = (found.steps(Choice("plain", 0.6, follow, (0.0, 0.0))) for follow in (0.0, 0.5, 1.0))
    assert even == (40, 40)
    assert even[0] < half[0] < full[0] and even[1] > half[1] > full[1]


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=30),
    st.floats(0.02, 1.0),
    st.lists(st.floats(-1, 1), min_size=PARTS, max_size=PARTS),
)
def test_every_choice_has_steps_within_its_share(sizes: list[int], keep: float, spread: list[float]) -> None:
    found = space(*(family(str(i), n) for i, n in enumerate(sizes)))
    steps = found.steps(Choice("plain", keep, 0.0, tuple(spread[: found.parts])))
    assert all(0 <= step < f.steps for step, f in zip(steps, found.families, strict=True))
    smallest = found.size([f.steps - 1 for f in found.families])
    assert found.size(steps) <= max(keep, smallest) + 1e-9 or keep < 3 * smallest


def test_neighbours_share_a_part() -> None:
    many = space(*(family(str(i), 4) for i in range(30)))
    assert many.parts == PARTS == 12
    assert many.part_of == tuple(sorted(many.part_of)) and len(set(many.part_of)) == PARTS
    assert set(many.dimensions()) == {"keep", *(f"part {i}" for i in range(PARTS))}
    assert space(family("a", 4), family("b", 4)).part_of == (0, 1)


def test_a_search_begins_with_uniform_cuts() -> None:
    plain = space(family("a", 100), family("b", 40))
    assert [plain.steps(choice) for choice in plain.first().values()] == [plain.uniform(i / 10) for i in range(1, 9)]
    led = space(family("a", 100), family("b", 40), prior=(2.0, 0.5), methods=("one", "two")).first()
    assert len(led) == 2 * (8 + 4)
    assert {choice.follow for name, choice in led.items() if "sensitivity" in name} == {1.0}
    assert {choice.method for name, choice in led.items() if name.startswith("two")} == {"two"}


def test_numbers_and_choices_are_each_others_inverse() -> None:
    found = space(family("a", 4), family("b", 4), prior=(1.0, 1.0))
    values = {"keep": 0.5, "follow": 0.25, "part 0": -0.5, "part 1": 1.0}
    assert set(found.dimensions()) == set(values)
    assert found.choice(values, "plain") == Choice("plain", 0.5, 0.25, (-0.5, 1.0))


def test_robustness_is_relative_to_the_family_in_the_middle() -> None:
    found = [family(name, 4) for name in "abcd"]
    # With a hundredth added: 0.04, 0.01, 0.09 and the middle one
    weights = robustness({"a": 0.03, "b": 0.0, "c": 0.08}, found)
    assert weights == pytest.approx((1.0, 2.0, 2 / 3, 1.0))
    assert robustness({"a": 0.0, "b": 0.5, "c": 0.5, "d": 1.0}, found)[0] == 4.0  # no more than that
    assert robustness({}, found) == (1.0,) * 4
