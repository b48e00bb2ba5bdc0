"""From scores and a budget to the units that go."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx

from compress.errors import InputError, ModelError
from compress.graph import (
    Cluster,
    Coupling,
    attribute,
    clusters,
    empty_pieces,
    layer_weights,
    lowest,
    macs,
    parameters,
    thawed,
)

Scores = Mapping[str, NDArray[np.floating]]
Removed = dict[str, NDArray[np.int64]]
Kind = Literal["ratio", "macs", "params", "bytes"]


@dataclass(frozen=True)
class Budget:
    """How small the result is to be.

    Attributes:
        kind: ``ratio`` - fraction of units removed from every group; the others - what is kept.
        value: The fraction, or an absolute number if it is 1 or more (multiply-accumulates of one sample,
            parameters, bytes of float32 parameters).
    """

    kind: Kind = "ratio"
    value: float = 0.3

    def __post_init__(self) -> None:
        if self.kind == "ratio" and not 0 < self.value < 1:
            raise InputError(
                f"--ratio: must lie between 0 and 1, got {self.value:g}", "--ratio 0.3 removes 30 % of units"
            )
        if self.value <= 0:
            raise InputError(f"--{self.kind}: must be above 0, got {self.value:g}")


def prunable(
    coupling: Coupling, found: Sequence[Cluster], only: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Cluster, ...]:
    """Clusters that a method may shrink: matched by the globs, of more than one step, and one choice per index.

    Where whole blocks (heads) and the indices inside them (features of a head) could both go, the indices go;
    blocks are used where single indices cannot.

    Raises:
        InputError: A glob matches no layer.
        ModelError: Nothing is left to prune; or a glob of ``only`` matches nothing but frozen layers.
    """
    _check_globs(coupling, only, exclude)
    chosen = _allowed(coupling, found, only, exclude)
    fine = {g for c in chosen for g in c.groups if coupling.group(g).kind != "blocks"}
    result = tuple(c for c in chosen if not any(_covered(coupling, g, fine) for g in c.groups))
    if not result:
        _refuse_frozen(coupling, only, exclude)
        raise ModelError(
            "nothing to prune: no group of units may lose one",
            "`compress inspect` lists the groups and what holds each layer; check --only and --exclude",
        )
    return result


def _covered(coupling: Coupling, group: str, fine: set[str]) -> bool:
    return coupling.group(group).kind == "blocks" and bool(coupling.overlaps.get(group, frozenset()) & fine)


def _layers(coupling: Coupling, group: str) -> list[str]:
    """Names under which a group may be called: its own, and the layers whose outputs it holds."""
    return [group, *coupling.layers_of(group)]


def _allowed(
    coupling: Coupling, found: Sequence[Cluster], only: Sequence[str], exclude: Sequence[str]
) -> list[Cluster]:
    """Clusters of more than one step that the globs let through."""

    def allowed(cluster: Cluster) -> bool:
        if not only and not exclude:
            return True
        names = [n for g in cluster.groups for n in _layers(coupling, g)]
        return (not only or _hit(names, only)) and not _hit(names, exclude)

    return [c for c in found if c.steps > 1 and allowed(c)]


def _hit(names: Sequence[str], globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def _check_globs(coupling: Coupling, only: Sequence[str], exclude: Sequence[str]) -> None:
    if not only and not exclude:
        return
    names = {n for g in coupling.groups for n in _layers(coupling, g.name)}
    strange = [glob for glob in (*only, *exclude) if not _hit([*names], [glob])]
    if not strange:
        return
    free = thawed(coupling)
    names |= {n for g in free.groups for n in _layers(free, g.name)}
    whole = [name.rpartition(".")[0] for name in layer_weights(coupling)]  # a classifier keeps its outputs anyway
    for glob in strange:
        if glob not in only and _hit(whole, [glob]):
            continue
        if not _hit([*names], [glob]):
            import difflib

            known = sorted(names)
            near = difflib.get_close_matches(glob, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}?" if near else f"layers are named like {', '.join(known[:3])}"
            raise InputError(f"no prunable layer matches '{glob}'", hint)
        if glob in only:
            _refuse_frozen(coupling, [glob])


def _refuse_frozen(coupling: Coupling, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
    """Say so where the globs reach something to prune that only frozen parameters hold."""
    free = thawed(coupling)
    held = {g for c in _allowed(free, clusters(free), only, exclude) for g in c.groups}
    tensors = {m.tensor for g in held for m in free.group(g).members} & coupling.flow.untrained
    if not tensors:
        return
    module = coupling.program.module
    everything = not only and not exclude and not any(p.requires_grad for p in module.parameters())
    names = [n for n, _ in module.named_parameters(remove_duplicate=False) if n in tensors]
    raise ModelError(
        f"nothing to prune: every parameter of {'the model' if everything else _listed(module, names)} is frozen",
        "unfreeze it, or say --allow-frozen",
    )


def _listed(module: fx.GraphModule, names: Sequence[str]) -> str:
    """The layers that the frozen parameters belong to; the parameter alone where its layer is not wholly frozen."""
    places = []
    for name in names:
        layer = name.rpartition(".")[0]
        whole = layer and not any(p.requires_grad for p in attribute(module, layer).parameters())
        places.append(layer if whole else name)
    places = list(dict.fromkeys(places))
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def at_steps(coupling: Coupling, found: Sequence[Cluster], scores: Scores, steps: Sequence[int]) -> Removed:
    """Units that go when cluster ``i`` loses ``steps[i]`` of its steps; no piece of a split is left empty."""
    steps = list(steps)
    while True:
        removed: Removed = {}
        for cluster, step in zip(found, steps, strict=True):
            removed.update(lowest(cluster, scores, step))
        bad = empty_pieces(coupling, coupling.alive(removed))
        held = [i for i, c in enumerate(found) if steps[i] and bad & set(c.groups)]
        if not held:
            return removed
        for i in held:
            steps[i] -= 1


def at_ratio(coupling: Coupling, found: Sequence[Cluster], scores: Scores, ratio: float) -> Removed:
    """The same fraction of every cluster, rounded to its steps; something always stays."""
    steps = [min(c.steps - 1, int(np.floor(ratio * c.steps + 0.5))) for c in found]
    return at_steps(coupling, found, scores, steps)


def fit(coupling: Coupling, found: Sequence[Cluster], scores: Scores, budget: Budget) -> Removed:
    """The fraction of every cluster with which the network just fits the budget.

    Raises:
        ModelError: Even the smallest allowed network is over the budget; the message names its size.
    """
    if budget.kind == "ratio":
        return at_ratio(coupling, found, scores, budget.value)
    size = _measure(coupling, budget.kind)
    everything = np.ones(coupling.flow.relations.count, dtype=bool)
    dense = size(everything)
    limit = budget.value * dense if budget.value < 1 else budget.value
    if limit >= dense:
        return {}
    low, high = 0.0, 1.0
    smallest = size(coupling.alive(at_ratio(coupling, found, scores, high)))
    if smallest > limit:
        raise ModelError(
            f"--{budget.kind} {limit:,.0f} cannot be met: the smallest allowed widths still need {smallest:,.0f}",
            "choose a larger budget, or allow more layers to shrink",
        )
    for _ in range(20):
        middle = (low + high) / 2
        over = size(coupling.alive(at_ratio(coupling, found, scores, middle))) > limit
        low, high = (middle, high) if over else (low, middle)
    return at_ratio(coupling, found, scores, high)


def _measure(coupling: Coupling, kind: Kind) -> Callable[[NDArray[np.bool_]], float]:
    if kind == "macs":
        return lambda alive: float(macs(coupling, alive))
    factor = 4 if kind == "bytes" else 1
    return lambda alive: float(parameters(coupling, alive) * factor)


def fit_layers(coupling: Coupling, found: Sequence[Cluster], scores: Scores, shares: Mapping[str, float]) -> Removed:
    """Shrink until every layer's weight has at most its share of values left.

    Args:
        coupling: The analysed network.
        found: Clusters that may shrink.
        scores: Units with low scores go first.
        shares: By weight name the fraction of its values that may stay.

    Each time the layer that is most over its share loses one step, in that of its dims whose next units cost least.
    """
    touching = _touching(coupling, found, shares)
    steps = [0] * len(found)
    means = [_next_cost(c, scores) for c in found]
    while True:
        worst, excess = "", 1.0 + 1e-9
        for layer, reach in touching.items():
            left = 1.0
            for i in reach:
                left *= 1 - steps[i] / found[i].steps
            over = left / max(shares[layer], 1e-12)
            if over > excess and any(steps[i] < found[i].steps - 1 for i in reach):
                worst, excess = layer, over
        if not worst:
            return at_steps(coupling, found, scores, steps)
        open_ = [i for i in touching[worst] if steps[i] < found[i].steps - 1]
        steps[min(open_, key=lambda i: means[i][steps[i]])] += 1


def _touching(coupling: Coupling, found: Sequence[Cluster], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """For every weight the clusters that shorten one of its dims."""
    result: dict[str, list[int]] = {name: [] for name in shares}
    for i, cluster in enumerate(found):
        for name in cluster.groups:
            for member in coupling.group(name).members:
                tensor = attribute(coupling.program.module, member.tensor)
                whole = member.index.size == member.blocks * tensor.shape[member.dim]
                if member.tensor in result and whole and i not in result[member.tensor]:
                    result[member.tensor].append(i)
    return {name: reach for name, reach in result.items() if reach}


def _next_cost(cluster: Cluster, scores: Scores) -> NDArray[np.floating]:
    """By step, the mean score of the units that go next, relative to the cluster's mean."""
    costs = np.zeros(cluster.steps)
    for cell in cluster.cells:
        ordered = np.sort(scores[cell.group][cell.units])
        costs += ordered.reshape(cluster.steps, -1).sum(1) / max(float(ordered.mean()), 1e-30)
    return costs
