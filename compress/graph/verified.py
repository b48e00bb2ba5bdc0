"""Slice, verify, and take back what does not pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx

from compress.errors import ModelError
from compress.graph.groups import Coupling
from compress.graph.rules import UnbalancedError
from compress.graph.select import clusters
from compress.graph.slice import slice_graph
from compress.graph.verify import Verification, verify

Removed = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class VerifiedSlice:
    """A sliced network that equals its masked original.

    Attributes:
        module: The sliced network.
        removed: By group the units that went.
        alive: By label, what stays.
        verification: The comparison it passed.
        rolled_back: Groups that were left whole because their slice failed, with what was met.
    """

    module: fx.GraphModule
    removed: Removed
    alive: NDArray[np.bool_]
    verification: Verification
    rolled_back: Mapping[str, str] = field(default_factory=dict)


def slice_verified(coupling: Coupling, removed: Removed, check: Callable[..., Verification] = verify) -> VerifiedSlice:
    """Slice and compare with the masked original; groups whose slice fails are left whole and named.

    Args:
        coupling: The analysed network.
        removed: By group the units to remove.
        check: The comparison; takes the coupling, what is alive, and the sliced network.

    Raises:
        ModelError: Even the network with nothing removed differs from itself.
    """
    whole = _attempt(coupling, removed, check)
    if isinstance(whole, VerifiedSlice):
        return whole
    rolled_back: dict[str, str] = {}
    parts = [{n: removed[n] for n in c.groups if n in removed} for c in clusters(coupling)]
    _search(coupling, [p for p in parts if p], check, rolled_back)
    left = {n: u for n, u in removed.items() if n not in rolled_back}
    again = _attempt(coupling, left, check)
    if isinstance(again, VerifiedSlice):
        return VerifiedSlice(again.module, left, again.alive, again.verification, rolled_back)
    untouched = _attempt(coupling, {}, check)
    if not isinstance(untouched, VerifiedSlice):
        raise ModelError(
            f"the traced network does not reproduce itself: {untouched}",
            "the model may produce numbers that are not finite, or keep a state between its runs",
        )
    rolled_back |= {n: str(again) for n in left}
    return VerifiedSlice(untouched.module, {}, untouched.alive, untouched.verification, rolled_back)


def _attempt(coupling: Coupling, removed: Removed, check: Callable[..., Verification]) -> VerifiedSlice | str:
    """The verified slice, or what is wrong with it."""
    alive = coupling.alive(removed)
    try:
        sliced = slice_graph(coupling, alive)
    except UnbalancedError as error:
        return str(error)
    outcome = check(coupling, alive, sliced)
    if outcome.passed:
        return VerifiedSlice(sliced, removed, alive, outcome)
    return outcome.problem or f"outputs differ from the masked original by {outcome.error:.1e}"


def _search(
    coupling: Coupling, parts: list[Removed], check: Callable[..., Verification], found: dict[str, str]
) -> None:
    """Find by halving the parts whose slice fails."""
    if not parts:
        return
    together = {n: u for part in parts for n, u in part.items()}
    outcome = _attempt(coupling, together, check)
    if isinstance(outcome, VerifiedSlice):
        return
    if len(parts) == 1:
        found |= dict.fromkeys(parts[0], outcome)
        return
    half = len(parts) // 2
    before = len(found)
    _search(coupling, parts[:half], check, found)
    _search(coupling, parts[half:], check, found)
    if len(found) == before:  # each half passes, only the two together fail
        found |= {n: outcome for part in parts[half:] for n in part}
