from __future__ import annotations

import pytest

from compress.recover.schedule import factor, warmup_steps


def test_a_rise_then_a_cosine() -> None:
    found = [factor(step, 10, warmup=2) for step in range(10)]
    # (1 + cos(pi k / 8)) / 2 for k = 0 to 7
    cosine = [1.0, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]
    assert found == pytest.approx([0.5, 1.0, *cosine], abs=1e-6)


def test_constant() -> None:
    assert [factor(step, 4, warmup=1, kind="constant") for step in range(4)] == [1.0] * 4


def test_no_warmup_starts_at_the_top() -> None:
    assert factor(0, 4) == 1.0
    assert factor(3, 4) == pytest.approx(0.146447, abs=1e-6)


@pytest.mark.parametrize(("total", "share", "steps"), [(100, 0.05, 5), (10, 0.05, 1), (10, 0.0, 0), (3, 1.0, 3)])
def test_length_of_the_warmup(total: int, share: float, steps: int) -> None:
    assert warmup_steps(total, share) == steps
