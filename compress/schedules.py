"""How fast a selection narrows: the annealing schedule of FSA.

Barbu, She, Ding and Gramajo: Feature Selection with Annealing for Computer Vision and Big Data Learning (2017).
"""

from __future__ import annotations


def annealed(step: int, total: int, start: int, end: int, mu: float) -> int:
    """How many of ``start`` things are kept at a step: M_i = k + (M - k) max(0, (N - 2i) / (2 i mu + N)), truncated.

    Falls from ``start`` at step 0 to ``end`` at half of the steps, and stays there.

    Args:
        step: Step i, from 0.
        total: Number of steps N, at least 1.
        start: Number of things before the first step, M.
        end: Number of things to be left, k, 0 to ``start``.
        mu: How early the most is dropped, at least 0; 0 drops evenly.

    Raises:
        ValueError: An argument is out of its range.
    """
    if not 0 <= end <= start:
        raise ValueError(f"end must be 0 to start ({start}), not {end}")
    if total < 1 or step < 0:
        raise ValueError(f"step must be at least 0 and total at least 1, not {step} and {total}")
    if not mu >= 0:
        raise ValueError(f"mu must be at least 0, not {mu}")
    if 2 * step >= total:
        return end
    # One division, last: a result that is a whole number then comes out whole and is not truncated to the one below.
    return end + int((start - end) * (total - 2 * step) / (2 * step * mu + total))
