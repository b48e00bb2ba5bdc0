"""Adjacency matrices of graph networks: which relations between nodes are needed, found while the network trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from compress.plugin import (
    Context,
    InputError,
    LearnedAdjacency,
    Loop,
    ModelError,
    Plan,
    Session,
    mixing_matrices,
    option,
    relationship_score,
)
from compress_plugins.edges import by_epoch, count, count_others, read_through

Start = Literal["given", "dense"]
Sums = Literal["given", "one"]
Normalise = Literal["balanced", "sinkhorn", "none"]


@dataclass(frozen=True)
class Adjacency:
    """Trains the adjacency matrices of a graph network, elements that are not needed to exactly zero"""

    source: ClassVar[str] = (
        "Lee, Differentiable Sparsification for Deep Neural Networks, 2019, section on graph convolutional networks"
    )
    granularities: ClassVar[tuple[str, ...]] = ("weight",)

    matrix: str | None = option(None, "name of the one matrix to train; without it all that `A @ H` reads")
    lam: float = option(0.01, "weight of the p-norms of rows and columns, as a mean over the nodes")
    p: float = option(0.5, "of the norm; above 0 and below 1")
    begin: Start = option("given", "given: from the matrix as it is, exactly; dense: from relations of all to all")
    sums: Sums = option("given", "what rows and columns sum to: as in the matrix, or one, as in the paper")
    normalise: Normalise = option("balanced", "how the sums are reached: rows and columns at once, or in turns")
    iterations: int = option(10, "of that in training; in evaluation it is 50")

    def __post_init__(self) -> None:
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam: must be 0 or more, got {self.lam:g}")
        if not 0 < self.p < 1:
            raise ValueError(f"p: must be above 0 and below 1, got {self.p:g}")
        if self.iterations < 1:
            raise ValueError(f"iterations: must be 1 or more, got {self.iterations}")

    def start(self, context: Context) -> Related:
        """A session.

        Raises:
            InputError: The matrix that was named is none.
            ModelError: The network multiplies no such matrix with what it computes.
        """
        if context.has_budget:
            context.progress.warn(f"adjacency: --lam says how much goes, whatever --{context.budget.kind} says")
        return Related(self, context, matrices(context.module, self.matrix))


def matrices(network: fx.GraphModule, name: str | None) -> dict[str, Tensor]:
    """Square constants without negative elements that are multiplied with what a network computes, by name.

    Raises:
        InputError: The one that was named is not among them.
        ModelError: There are none.
    """
    square = mixing_matrices(network)
    found = {n: t.detach() for n, t in square.items() if not bool((t < 0).any()) and bool((t > 0).any())}
    if name is not None and name not in found and square:
        why = "has negative elements, or nothing else than zeros" if name in square else "is no adjacency matrix"
        raise InputError(
            f"--matrix {name} {why}", f"matrices are {', '.join(found)}" if found else "leave out --matrix"
        )
    if not found:
        held = f": {', '.join(square)} has negative elements, or none but zeros" if square else ""
        raise ModelError(
            f"no adjacency matrix: a square parameter or buffer A, without negative elements, in a product A @ H{held}",
            "--mode wiring is about the weights of layers",
        )
    return found if name is None else {name: found[name]}


class _Read(nn.Module):
    """Gives the learned matrix where the given one was read."""

    def __init__(self, learned: LearnedAdjacency) -> None:
        super().__init__()
        self.learned = learned

    def forward(self, given: Tensor) -> Tensor:
        return self.learned.matrix()


class Related(Session):
    """One training with learned matrices. The last epoch is the result, when the learning rate has become small."""

    def __init__(self, method: Adjacency, context: Context, given: Mapping[str, Tensor]) -> None:
        super().__init__(context)
        self.method, self.given = method, dict(given)
        self.counts: list[list[int]] = []  # epoch, elements that are not zero
        generator = context.generator()
        parameters = dict(self.network.named_parameters(remove_duplicate=False))
        self.owned = any(name in parameters for name in self.given)  # whether the matrices count as parameters
        self.readers: dict[str, str] = {}
        for number, (name, matrix) in enumerate(self.given.items()):
            ones = method.sums == "one"
            learned = LearnedAdjacency(
                matrix if method.begin == "given" else len(matrix),
                method.normalise,
                rows=None if ones else matrix.sum(1),
                columns=None if ones else matrix.sum(0),
                iterations=method.iterations,
                generator=generator,
            ).to(matrix)
            self.readers[name] = f"adjacency_{number}"
            read_through(self.network, name, self.readers[name], _Read(learned))
            if name in parameters:
                parameters[name].requires_grad_(False)  # nothing reads it

    def undecayed(self) -> Iterable[str]:
        return (f"{reader}.learned.alpha" for reader in self.readers.values())

    def begin(self, loop: Loop) -> None:
        if not self.counts:
            self._count(loop)

    def penalty(self, loop: Loop) -> Tensor | None:
        norms = [self._learned(loop.network, n).penalty(self.method.p) / len(given) for n, given in self.given.items()]
        return self.method.lam * torch.stack(norms).sum()

    def after_epoch(self, loop: Loop) -> None:
        self._count(loop)

    def ready(self, loop: Loop) -> bool:
        return loop.step == loop.total

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        relations = self.counts[-1][1]
        others = count_others(loop.network, (*self.given, *self.readers.values()))
        return {"relations": relations, "nonzero": others + (relations if self.owned else 0)}

    def state(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def load(self, state: Mapping[str, Any]) -> None:
        self.counts = [list(each) for each in state["counts"]]

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        """The matrices as constants."""
        plain = self.context.copy()
        trained = dict((*network.named_parameters(), *network.named_buffers()))
        trained |= {name: self._learned(network, name).fixed().matrix for name in self.given}
        with torch.no_grad():
            for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
                tensor.copy_(trained[name])
        return plain

    def plan(self, context: Context) -> Plan:
        """Masks of the elements that are zero; says which nodes are isolated, and how near the relations are."""
        found = {name: context.weight(name) for name in self.given}
        notes = {name: self._note(name, matrix) for name, matrix in found.items()}
        figure = by_epoch("relations", "Elements of adjacency matrices that are not zero", "elements", self.counts)
        return Plan(masks={name: matrix != 0 for name, matrix in found.items()}, notes=notes, figures=(figure,))

    def _note(self, name: str, matrix: Tensor) -> dict[str, Any]:
        note: dict[str, Any] = {"weights": matrix.numel(), "kept_weights": count([matrix])}
        for steps in (1, 2):
            note[f"relationship score, k={steps}"] = relationship_score(matrix, self.given[name], steps)
        lonely = isolated(matrix)
        if lonely:
            shown = ", ".join(map(str, lonely[:8])) + (", ..." if len(lonely) > 8 else "")
            note["isolated nodes"] = lonely
            note["warning"] = f"{len(lonely)} of {len(matrix)} nodes have no relation to others any more: {shown}"
        return note

    def _learned(self, network: fx.GraphModule, name: str) -> LearnedAdjacency:
        learned = network.get_submodule(f"{self.readers[name]}.learned")
        assert isinstance(learned, LearnedAdjacency)
        return learned

    def _count(self, loop: Loop) -> None:
        left = count(self._learned(loop.network, name).fixed().matrix for name in self.given)
        self.counts.append([loop.epoch, left])


def isolated(matrix: Tensor) -> list[int]:
    """Nodes that neither read another node nor are read by one, of a matrix (N, N)."""
    joined = matrix != 0
    joined = joined & ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
    return (~(joined.any(0) | joined.any(1))).nonzero().flatten().tolist()
