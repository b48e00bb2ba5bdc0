"""Exact removal of what zero weights have left without effect.

A unit is dead behind when nothing that stays depends on it (all its outgoing weights are zero), and dead before when
nothing reaches it (all its incoming weights are zero). The first is simply removed; the second puts out a constant,
which the layers that read it take over in their biases. Both make further units dead, upstream and downstream.

Constants are proved (``constants.py``), units that nothing depends on are found all at once (``unread.py``), and the
result is compared with the masked network in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.errors import ModelError
from compress.graph.carry import add_biases, carried, places
from compress.graph.constants import observe
from compress.graph.double import Wide, as_double
from compress.graph.groups import Coupling
from compress.graph.select import clusters, empty_pieces
from compress.graph.slice import attribute, slice_graph
from compress.graph.unread import unread
from compress.graph.verified import slice_verified
from compress.graph.verify import TOLERANCE, Verification, compare

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DeadRemoval:
    """Outcome of :func:`remove_dead`.

    Attributes:
        module: The sliced network in the precision of the original.
        removed: By group the units that went.
        carried: By group how many of them put out a constant that is not zero and was taken over.
        left: By group how many dead units stay, because as many must go from each block or one has to stay.
        verification: The sliced network against the masked one, in float64.
        rolled_back: Groups that were left whole because their slice failed, and what was met.
    """

    module: fx.GraphModule
    removed: Mapping[str, Ints]
    carried: Mapping[str, int]
    left: Mapping[str, int]
    verification: Verification
    rolled_back: Mapping[str, str] = field(default_factory=dict)


def remove_dead(coupling: Coupling, masks: Mapping[str, Tensor], groups: Collection[str] | None = None) -> DeadRemoval:
    """Zero the masked weights and remove what is dead then.

    Args:
        coupling: The analysed network.
        masks: By parameter name, True where a weight stays.
        groups: Names of the groups that may lose units; all when absent.

    A layer keeps one unit even where all of it is dead. What a weight is in this network counts, not where its zeros
    come from: units that were dead before the masks go too.

    Raises:
        ModelError: With its masked weights at zero, the network gives no finite numbers.
    """
    reference = _masked(coupling, masks)
    inputs = coupling.program.inputs
    facts, where = observe(reference, inputs, coupling.program.module), places(coupling)
    dead = unread(coupling, facts, [g.name for g in coupling.groups] if groups is None else groups, where)
    moved = carried(coupling, facts, where, dead, _attributes(reference))
    prepared = _with_tensors(coupling, moved.tensors)
    expected = _finite(Wide(reference).outputs(inputs))

    def check(_: Coupling, alive: NDArray[np.bool_], sliced: fx.GraphModule) -> Verification:
        try:
            got = Wide(add_biases(sliced, moved, where, coupling.kept(alive))).outputs(inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            problem = f"the sliced network does not run: {str(error).splitlines()[0]}"
            return Verification(float("inf"), TOLERANCE, problem)
        return compare(expected, got, TOLERANCE)

    everything = coupling.alive({})
    if moved.units and not check(prepared, everything, slice_graph(prepared, everything)).passed:
        return _left_alone(coupling, reference, dead)
    done = slice_verified(prepared, _balanced(coupling, dead), check)
    left = {n: len(u) - len(done.removed.get(n, ())) for n, u in dead.items()}
    constant = {n: int(np.isin(done.removed.get(n, ()), u).sum()) for n, u in moved.units.items()}
    return DeadRemoval(
        module=_narrowed(done.module, coupling, {where[n].name: where[n].weight for n in where}),
        removed=done.removed,
        carried={n: count for n, count in constant.items() if count},
        left={n: count for n, count in left.items() if count},
        verification=done.verification,
        rolled_back=done.rolled_back,
    )


def _finite(outputs: list[Tensor]) -> list[Tensor]:
    if not all(bool(y.isfinite().all()) for y in outputs if y.is_floating_point()):
        raise ModelError(
            "with its masked weights at zero the network gives numbers that are not finite",
            "a layer may divide by the norm of its weights: leave it out with --exclude",
        )
    return outputs


def dead_units(coupling: Coupling, groups: Collection[str]) -> dict[str, Ints]:
    """By group the units that nothing that stays depends on, as many as can go; no constant has to be carried on.

    Args:
        coupling: The analysed network.
        groups: Names of the groups that may lose units.
    """
    program = coupling.program
    facts = observe(as_double(program.module), program.inputs, program.module)
    return _balanced(coupling, unread(coupling, facts, groups, ()))


def _left_alone(coupling: Coupling, reference: fx.GraphModule, dead: Mapping[str, Ints]) -> DeadRemoval:
    """The masked network as it is, where a constant that was to be carried on is none after all."""
    whole = dict.fromkeys(dead, "its constants cannot be carried on exactly")
    left = {name: len(units) for name, units in dead.items()}
    return DeadRemoval(_narrowed(reference, coupling, {}), {}, {}, left, Verification(0.0, TOLERANCE), whole)


def _masked(coupling: Coupling, masks: Mapping[str, Tensor]) -> fx.GraphModule:
    """The network in float64 with its masked weights at zero; tied weights are masked together."""
    wide = as_double(coupling.program.module)
    tensors = _attributes(wide)
    for name, mask in masks.items():
        masked = tensors[name] * mask
        same = [other for other, tensor in tensors.items() if tensor is tensors[name]]
        tensors |= dict.fromkeys([*same, name], masked)
    return fx.GraphModule(tensors, wide.graph)


def _with_tensors(coupling: Coupling, tensors: Mapping[str, Any]) -> Coupling:
    """The same network with other numbers."""
    module = fx.GraphModule(dict(tensors), coupling.program.module.graph)
    return replace(coupling, program=replace(coupling.program, module=module))


def _balanced(coupling: Coupling, dead: Mapping[str, Ints]) -> dict[str, Ints]:
    """The dead units that can go: as many in each block as in the block that has fewest; one of a dim always stays."""
    found = clusters(coupling)
    cells = [[c.units[np.isin(c.units, dead.get(c.group, ()))] for c in each.cells] for each in found]
    steps = []
    for cluster, units in zip(found, cells, strict=True):
        shares = [len(cell.units) // cluster.steps for cell in cluster.cells]
        most = min(len(u) // share for u, share in zip(units, shares, strict=True))
        steps.append(min(most, cluster.steps))
    while True:
        removed: dict[str, list[Ints]] = {}
        for cluster, units, step in zip(found, cells, steps, strict=True):
            for cell, each in zip(cluster.cells, units, strict=True):
                removed.setdefault(cell.group, []).append(each[: step * (len(cell.units) // cluster.steps)])
        result = {name: np.sort(np.concatenate(parts)) for name, parts in removed.items()}
        result = {name: units for name, units in result.items() if len(units)}
        bad = empty_pieces(coupling, coupling.alive(result))
        held = [i for i, c in enumerate(found) if steps[i] and bad & set(c.groups)]
        if not held:
            return result
        for i in held:
            steps[i] -= 1


def _attributes(module: fx.GraphModule) -> dict[str, Any]:
    names = [str(n.target) for n in module.graph.nodes if n.op == "get_attr"]
    return {n: attribute(module, n) for n in names}


def _narrowed(wide: fx.GraphModule, coupling: Coupling, weights: Mapping[str, str]) -> fx.GraphModule:
    """The float64 result with the precision of the original; a bias that is new has that of its weight.

    What was one tensor under several names is one again.
    """
    source = _attributes(coupling.program.module)
    tensors: dict[str, Any] = {}
    first: dict[int, str] = {}
    for name, tensor in _attributes(wide).items():
        like = source[name] if name in source else source[weights[name]]
        tied = first.setdefault(id(like), name) if name in source else name
        if tied != name:
            tensors[name] = tensors[tied]
            continue
        value = tensor.detach().to(like.dtype) if isinstance(tensor, Tensor) else tensor
        is_parameter = isinstance(like, nn.Parameter)
        tensors[name] = nn.Parameter(value, like.requires_grad) if is_parameter else value
    return fx.GraphModule(tensors, wide.graph, class_name="Network")
