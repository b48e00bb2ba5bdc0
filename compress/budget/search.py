"""The search for the widths that just meet a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress.budget.align import Ints
from compress.budget.allocation import Moves, Stairs
from compress.budget.kinds import SLACK, Removed, Scores
from compress.budget.steps import at_steps
from compress.graph import Cluster, Coupling

# Each exchange of steps costs two sizes for every cluster
_EXCHANGES = 5
_TRIED = 10


@dataclass(frozen=True)
class Search:
    """What a budget is looked for in.

    Attributes:
        way: Where clusters may stand.
        moves: Single steps in the order of the allocation.
        measure: The size that is left when these units go.
    """

    coupling: Coupling
    found: Sequence[Cluster]
    scores: Scores
    way: Stairs
    moves: Moves
    measure: Callable[[Removed], float]

    def removed(self, positions: Ints) -> Removed:
        return at_steps(self.coupling, self.found, self.scores, self.way.steps(positions), self.way.rungs)

    def size(self, positions: Ints) -> float:
        return self.measure(self.removed(positions))

    def after(self, count: int) -> Ints:
        return self.moves.positions(self.way, count)

    def within(self, limit: float) -> Ints | None:
        """The positions after the fewest moves with which the limit is met; None where it cannot be."""
        if self.size(self.after(0)) <= limit:
            return self.after(0)
        over, met = 0, len(self.moves)
        if self.size(self.after(met)) > limit:
            return None
        while met - over > 1:
            middle = (over + met) // 2
            over, met = (middle, met) if self.size(self.after(middle)) > limit else (over, middle)
        return self.after(met)

    def filled(self, positions: Ints, limit: float) -> Ints:
        """Where less than 2 % of the limit are left over, or no step can be given back, nor two be exchanged."""
        size = self.size(positions)
        for _ in range(_EXCHANGES):
            positions, size = self._given_back(positions, size, limit)
            nearer = None if size >= (1 - SLACK) * limit else self._exchanged(positions, size, limit)
            if nearer is None:
                return positions
            positions, size = nearer
        return self._given_back(positions, size, limit)[0]

    def _given_back(self, positions: Ints, size: float, limit: float) -> tuple[Ints, float]:
        """Single steps taken back, the last taken first, until nothing more fits or less than 2 % are left over."""
        latest = list(dict.fromkeys(self.moves.cluster[::-1].tolist()))
        again = True
        while again:
            again = False
            for i in latest:
                if size >= (1 - SLACK) * limit:
                    return positions, size
                if positions[i] > self.way.start[i] and (larger := self.size(_moved(positions, i, -1))) <= limit:
                    positions, size, again = _moved(positions, i, -1), larger, True
        return positions, size

    def _exchanged(self, positions: Ints, size: float, limit: float) -> tuple[Ints, float] | None:
        """A step of one cluster for one of another that comes nearer to the limit, by what either alone would do."""
        clusters = range(len(positions))
        back = {i: self.size(_moved(positions, i, -1)) for i in clusters if positions[i] > self.way.start[i]}
        more = {i: self.size(_moved(positions, i, 1)) for i in clusters if positions[i] < self.way.top[i]}
        pairs = [(a + b - size, i, j) for i, a in back.items() for j, b in more.items() if i != j]
        likely = sorted((pair for pair in pairs if size < pair[0] <= limit), reverse=True)
        for _, i, j in likely[:_TRIED]:
            both = _moved(_moved(positions, i, -1), j, 1)
            if size < (found := self.size(both)) <= limit:
                return both, found
        return None


def _moved(positions: Ints, cluster: int, by: int) -> Ints:
    moved = positions.copy()
    moved[cluster] += by
    return moved
