"""The letters of an einsum, and the products it is computed by."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence


def einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result, one for each dim; ``...`` is given letters of its own.

    Args:
        equation: As ``torch.einsum`` takes it, with or without ``->``.
        ranks: Dims of the operands.
    """
    equation = equation.replace(" ", "")
    inputs, arrow, out = equation.partition("->")
    terms = inputs.split(",")
    spare = [c for c in string.ascii_letters if c not in equation]
    longest = max((rank - len(t) + 3 for rank, t in zip(ranks, terms, strict=True) if "..." in t), default=0)
    dots = "".join(spare[:longest])
    terms = [
        t.replace("...", dots[longest - (rank - len(t) + 3) :]) if "..." in t else t
        for rank, t in zip(ranks, terms, strict=True)
    ]
    if arrow:
        return terms, out.replace("...", dots)
    letters = "".join(terms)
    return terms, dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots))


def einsum_macs(terms: Sequence[str], out: str, sizes: Mapping[str, int], path: Sequence[int] | None) -> int:
    """Multiply-accumulates of an einsum, its operands multiplied in pairs as PyTorch does it.

    Args:
        terms: Letters of the operands.
        out: Letters of the result.
        sizes: By letter.
        path: Positions of the two operands of each product, one pair after the other; None for the first two each time.
    """
    waiting = [set(term) for term in terms]
    total = 0
    for i in range(len(terms) - 1):
        first, second = sorted(path[2 * i : 2 * i + 2]) if path else (0, 1)
        b, a = waiting.pop(second), waiting.pop(first)
        later = set(out).union(*waiting)
        a, b = a & (b | later), b & (a | later)  # letters of one operand alone are summed before the product
        if (a | b) - later:  # no sum, no multiply-accumulate
            total += math.prod(sizes[letter] for letter in a | b)
        waiting.append((a | b) & later)
    return total
