"""Lists of indices by which layers read some features of a tensor: sliced and renumbered with what they name."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.graph import Coupling, analyse, dead_units, parameters, slice_verified, trace
from compress.graph.lists import index_lists


class Reads(nn.Module):
    """Two layers read one hidden layer by lists; ``first`` is read by one of them, ``second`` by the other."""

    def __init__(self, first: list[int], second: list[int], inputs: list[int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 7)
        self.one, self.other = nn.Linear(len(first) + len(inputs), 3), nn.Linear(len(second), 3)
        for name, index in (("a", first), ("b", second), ("c", inputs)):
            self.register_buffer(name, torch.tensor(index))
        self.a: Tensor
        self.b: Tensor
        self.c: Tensor

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.hidden(x))
        one = self.one(torch.cat([x.index_select(1, self.c), h.index_select(1, self.a)], 1))
        out: Tensor = one + self.other(h.index_select(1, self.b))
        return out


def analysed(first: list[int], second: list[int], inputs: list[int]) -> Coupling:
    torch.manual_seed(0)
    return analyse(trace(Reads(first, second, inputs).eval(), (torch.randn(2, 5),)))


def test_lists_are_buffers_that_one_call_reads() -> None:
    assert index_lists(analysed([1, 3], [0, 3], [4, 2]).program.module) == {"a", "b", "c"}

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 4)
            self.register_buffer("index", torch.tensor([2, 0]))

        def forward(self, x: Tensor) -> Tensor:
            index: Tensor = self.index  # type: ignore[assignment]
            out: Tensor = self.layer(x).index_select(1, index) + index
            return out

    coupling = analyse(trace(Twice().eval(), (torch.randn(2, 5),)))
    assert not index_lists(coupling.program.module) and not coupling.groups


def test_a_unit_goes_from_all_lists_and_the_others_are_renumbered() -> None:
    coupling = analysed([1, 3, 5], [6, 3, 1], [4, 2])
    shared = next(g for g in coupling.groups if {m.tensor for m in g.members} >= {"a", "b"})
    assert shared.size == 2  # 1 and 3, which both lists name
    done = slice_verified(coupling, {shared.name: np.array([0])})
    assert not done.rolled_back and done.module.get_parameter("hidden.weight").shape == (6, 5)
    lists = {name: tensor.tolist() for name, tensor in done.module.named_buffers()}
    assert lists == {"a": [2, 4], "b": [5, 2], "c": [4, 2]}


def test_units_that_no_list_names_are_dead() -> None:
    coupling = analysed([1, 3], [3, 5], [4, 2])
    dead = dead_units(coupling, [g.name for g in coupling.groups])
    done = slice_verified(coupling, dead)
    assert (
        done.module.get_parameter("hidden.bias").tolist()
        == coupling.program.module.get_parameter("hidden.bias")[[1, 3, 5]].tolist()
    )
    assert {n: t.tolist() for n, t in done.module.named_buffers()} == {"a": [0, 1], "b": [1, 2], "c": [4, 2]}
    x = torch.randn(3, 5)
    torch.testing.assert_close(done.module(x), coupling.program.module(x))
    assert parameters(coupling) - parameters(coupling, coupling.alive(dead)) == 4 * 6
    assert not dead_units(coupling, [])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_lists_and_any_units(data: st.DataObject) -> None:
    """Also with repeated entries; a list keeps one entry."""
    entry = st.lists(st.integers(0, 6), min_size=2, max_size=6)
    coupling = analysed(data.draw(entry), data.draw(entry), [4, 2])
    removed = {g.name: data.draw(st.sets(st.integers(0, g.size - 1), max_size=g.size)) for g in coupling.groups}
    chosen = {name: np.array(sorted(units), dtype=np.int64) for name, units in removed.items() if units}
    alive = coupling.alive(chosen)
    if any(not alive[slot.labels].any() for slot in coupling.flow.slots):
        return
    done = slice_verified(coupling, chosen)
    assert not done.rolled_back and done.verification.passed
