"""The largest set of units that can all go at once without a change of what the network computes.

Everything is a candidate at first. Then, operation by operation from the outputs backwards, units go back whose
removal would show in something that stays: what is removed is marked, and the marks must not spread (see
:mod:`compress.graph.spread`) to an element that is kept. Zeros and constants that the layer behind them can take over
do not spread. Whole chains of dead units are found in one pass, as what only removed units read shows nowhere.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.constants import LAYERS, Call, Facts, Read
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules import Kept
from compress.graph.spread import spread

Ints = NDArray[np.int64]


def unread(
    coupling: Coupling, facts: Facts, groups: Collection[str], absorbing: Collection[fx.Node]
) -> dict[str, Ints]:
    """By group the units that nothing that stays depends on.

    Args:
        coupling: The analysed network.
        facts: What is known of it with its weights as they are.
        groups: Names of the groups that may lose units.
        absorbing: Nodes of layers that can take over a constant.
    """
    search = _Search(coupling, facts, groups, absorbing)
    search.hold_outputs()
    while search.sweep():
        pass
    return search.found()


def removed_channels(call: Call, kept: Kept, value: Value) -> Tensor:
    """Of the input of a layer, the channels that are removed at every position, boolean (channels,)."""
    axis = value.rank - 1 if call.op == "aten::linear" else 1
    mask = kept.element_mask(value)
    if mask is None:
        return torch.zeros(value.shape[axis], dtype=torch.bool)
    gone = np.moveaxis(~np.broadcast_to(mask, value.shape), axis, 0).reshape(value.shape[axis], -1)
    return torch.as_tensor(gone.all(1))


class _Search:
    def __init__(
        self, coupling: Coupling, facts: Facts, groups: Collection[str], absorbing: Collection[fx.Node]
    ) -> None:
        self.coupling, self.facts, self.absorbing = coupling, facts, absorbing
        self.candidate = np.zeros(len(coupling.classes.pinned), dtype=bool)
        for group in coupling.groups:
            self.candidate[group.units] = group.name in groups
        self._renew()

    def _renew(self) -> None:
        self.kept = Kept(self.coupling.classes.alive(np.flatnonzero(self.candidate)))

    def found(self) -> dict[str, Ints]:
        units = {g.name: np.flatnonzero(self.candidate[g.units]) for g in self.coupling.groups}
        return {name: each for name, each in units.items() if len(each)}

    def hold_outputs(self) -> None:
        """What the network returns stays."""
        node = next(n for n in self.coupling.program.module.graph.nodes if n.op == "output")
        for source in node.all_input_nodes:
            found = self.coupling.flow.values[source]
            for value in found if isinstance(found, (tuple, list)) else (found,):
                if isinstance(value, Value):
                    self._give_back(value, np.ones((1,) * value.rank, dtype=bool))
        self._renew()

    def sweep(self) -> bool:
        """Give back what shows somewhere; whether anything did."""
        before = int(self.candidate.sum())
        for call in reversed(self.facts.calls):
            while self.candidate.any() and self._shows(call):
                pass
        return int(self.candidate.sum()) < before

    def _shows(self, call: Call) -> bool:
        """Give back the units of which one call shows something in what stays; whether there were any."""
        marks: dict[tuple[fx.Node, int | None], Tensor] = {}
        values: dict[tuple[fx.Node, int | None], Value] = {}
        live = self._not_absorbed(call)
        for read in call.reads():
            value = self._value(read)
            mask = None if value is None else self.kept.element_mask(value)
            if value is not None and mask is not None:
                key = (read.node, read.index)
                gone = torch.as_tensor(~np.broadcast_to(mask, value.shape))
                marks[key], values[key] = gone.float().requires_grad_(), value
        if not marks:
            return False
        with torch.enable_grad():
            spread_marks = spread(call.marking(lambda r: marks.get((r.node, r.index)), live=live))
            seen = self._in_what_stays(call, spread_marks)
        if not seen.requires_grad or not bool(seen.detach() > 0):
            return False
        keys, before = list(marks), int(self.candidate.sum())
        found = torch.autograd.grad(seen, [marks[k] for k in keys], allow_unused=True)
        for key, gradient in zip(keys, found, strict=True):
            if gradient is not None:
                self._give_back(values[key], ((gradient > 0) & (marks[key] > 0)).numpy())
        if int(self.candidate.sum()) == before:  # too small a derivative to tell which: all of them
            for key in keys:
                self._give_back(values[key], (marks[key] > 0).numpy())
        self._renew()
        return True

    def _value(self, read: Read) -> Value | None:
        found = self.coupling.flow.values.get(read.node)
        if isinstance(found, (tuple, list)):
            found = found[read.index or 0]
        return found if isinstance(found, Value) and found.factors else None

    def _not_absorbed(self, call: Call) -> dict[str, Tensor]:
        """What of the input of a layer may matter when channels that it takes over as constants go whole."""
        if call.op not in LAYERS or call.node not in self.absorbing:
            return {}
        read: Read = call.args["input"]
        value = self._value(read)
        if value is None:
            return {}
        taken = ~self.facts.steady[call.node].isnan() & removed_channels(call, self.kept, value)
        shape = [1] * value.rank
        shape[-1 if call.op == "aten::linear" else 1] = -1
        return {"input": read.fact.live & ~taken.reshape(shape)}

    def _in_what_stays(self, call: Call, marks: Any) -> Tensor:
        found = self.coupling.flow.values[call.node]
        results = found if isinstance(found, (tuple, list)) else (found,)
        tensors = list(marks) if isinstance(marks, (list, tuple)) else [marks]
        total = torch.zeros(())
        for value, mark in zip(results, tensors, strict=True):
            mask = self.kept.element_mask(value)
            total = total + (mark if mask is None else mark * torch.as_tensor(np.ascontiguousarray(mask))).sum()
        return total

    def _give_back(self, value: Value, shown: NDArray[np.bool_]) -> None:
        """Keep the units that would remove any of the elements that ``shown`` marks."""
        shown = np.broadcast_to(shown, value.shape)
        for factor in value.factors:
            small = tuple(d for d, n in enumerate(factor.labels.shape) if n == 1)
            where = shown.any(axis=small, keepdims=True) if small else shown
            labels = factor.labels[where & ~self.kept.alive[factor.labels]]
            if len(labels):
                self.candidate[self.coupling.classes.units_of(np.unique(labels))[1]] = False
