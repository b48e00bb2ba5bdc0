"""Everything else a network may do: lookups, ties, loops, broadcasting, and operations that pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph import slice_module

Make = Callable[[], dict[str, Any]]


class Tied(nn.Module):
    """Input embedding and output layer share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.embed(ids) + torch.relu(self.hidden(self.embed(ids))))
        return y


def recurrent(m: Any, x: Any) -> Any:
    h = torch.zeros(x.shape[0], 8)
    for step in range(5):
        h = torch.tanh(m.i(x[:, step]) + m.h(h))
    return m.o(h)


def gated_recurrent(m: Any, x: Any) -> Any:
    h = c = x.new_zeros(x.shape[0], 8)
    for step in range(3):
        a, b, d, e = (m.i(x[:, step]) + m.h(h)).chunk(4, 1)
        c = b.sigmoid() * c + a.sigmoid() * d.tanh()
        h = e.sigmoid() * c.tanh()
    return m.o(h)


def manual_norm(m: Any, x: Any) -> Any:
    a = m.i(x)
    a = a - a.mean(-1, keepdim=True)
    return m.o(a * torch.rsqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6) * m.g)


def linears(*widths: int, **more: Any) -> Make:
    """``i`` and ``o``, from 16 features through the first width to the last."""
    return lambda: {"i": nn.Linear(16, widths[0]), "o": nn.Linear(widths[-2], widths[-1]), **more}


EXACT: dict[str, tuple[Callable[..., Any], Make, dict[str, int], bool]] = {
    "recurrent loop": (recurrent, linears(8, 2, h=nn.Linear(8, 8)), {"i": 8}, True),
    "gated recurrent loop": (
        gated_recurrent,
        lambda: {"i": nn.Linear(16, 32), "h": nn.Linear(8, 32), "o": nn.Linear(8, 2)},
        {"i": 8},
        True,
    ),
    "norm written out": (manual_norm, linears(8, 2, g=nn.Parameter(torch.ones(8))), {"i": 8}, False),
    "positions by index": (lambda m, x: m.o(m.i(x)[:, m.idx]), linears(8, 2, idx=torch.tensor([3, 0])), {"i": 8}, True),
    "outer sum": (
        lambda m, x: m.o(torch.relu(m.i(x)[:, :, None] + m.j(x)[:, None])),
        linears(8, 2, j=nn.Linear(16, 8)),
        {"i": 8},
        True,
    ),
    "broadcast over features": (lambda m, x: m.o(m.i(x) + m.j(x)), linears(8, 2, j=nn.Linear(16, 1)), {"i": 8}, True),
    "sum of everything": (
        lambda m, x: m.o(m.i(x) * m.j(x).sum()),
        linears(8, 2, j=nn.Linear(16, 6)),
        {"i": 8, "j": 6},
        True,
    ),
    "where": (
        lambda m, x: m.o(torch.where(m.i(x) > 0, m.j(x), 0.0)),
        linears(8, 2, j=nn.Linear(16, 8)),
        {"i": 8},
        True,
    ),
    "matrix products": (
        lambda m, x: torch.addmm(m.c, torch.relu(torch.mm(x[:, 0], m.a)), m.b),
        lambda: {n: nn.Parameter(torch.zeros(s)) for n, s in {"a": (16, 8), "b": (8, 3), "c": (3,)}.items()},
        {"a": 8},
        True,
    ),
    "flatten and back": (
        lambda m, x: m.o(m.f(m.i(x).flatten(1)).unflatten(1, (4, 6))),
        lambda: {"i": nn.Linear(16, 8), "f": nn.Linear(40, 24), "o": nn.Linear(6, 2)},
        {"i": 8, "f": 6},
        True,
    ),
    "constants appended": (
        lambda m, x: m.o(torch.cat([m.i(x), x.new_ones(x.shape[0], 5, 2)], -1)),
        lambda: {"i": nn.Linear(16, 8), "o": nn.Linear(10, 2)},
        {"i": 8},
        True,
    ),
    "token shift": (
        lambda m, x: m.o(torch.cat([F.pad(m.i(x), (0, 0, 1, -1))[..., :4], m.i(x)[..., 4:]], -1)),
        linears(8, 2),
        {"i": 8},
        True,
    ),
    "batch norm over tokens": (lambda m, x: m.o(m.n(m.i(x))), linears(8, 2, n=nn.BatchNorm1d(5)), {"i": 8}, True),
}


@pytest.mark.parametrize("name", EXACT)
def test_slice_is_exact(lab: Any, name: str) -> None:
    forward, parts, groups, zeroing = EXACT[name]
    lab.check(lab.network(forward, **parts()), torch.randn(2, 5, 16), groups=groups, zeroing=zeroing)


def test_tied_weights_shrink_once_and_stay_one_tensor(lab: Any) -> None:
    module = lab.randomised(Tied().eval())
    ids = torch.randint(11, (2, 5))
    coupling = lab.check(module, ids, groups={"hidden": 16})
    outcome = lab.cut(module, coupling)
    assert outcome.sliced.get_parameter("embed.weight") is outcome.sliced.get_parameter("head.weight")
    assert outcome.sliced.get_parameter("embed.weight").shape[1] < 16
    in_place = slice_module(module, coupling, outcome.alive, outcome.sliced).module
    assert in_place is not None
    assert in_place.get_parameter("head.weight") is in_place.get_parameter("embed.weight")


PINNED: dict[str, tuple[Callable[..., Any], Make, str]] = {
    "running logarithm": (lambda m, x: m.o(m.i(x).logcumsumexp(1)), linears(8, 2), "aten::logcumsumexp"),
}


@pytest.mark.parametrize("name", PINNED)
def test_operation_without_rule_pins_and_is_named(lab: Any, name: str) -> None:
    forward, parts, op = PINNED[name]
    module = lab.network(forward, **parts())
    coupling = lab.analyse(module, torch.randn(2, 5, 16))
    assert op in coupling.flow.unruled
    assert "i" not in lab.sizes(coupling)
    held = next(f for f in coupling.frozen if f.tensor == "i.weight" and f.dim == 0)
    assert held.op == op
    assert held.reason == f"{op} has no label rule"
    assert held.indices == module.i.weight.shape[0]


HELD: dict[str, tuple[Callable[..., Any], str]] = {
    "softmax over features": (lambda m, x: m.o(m.i(x).softmax(-1)), "normalised or ordered along this dimension"),
    "largest features": (lambda m, x: m.o(m.i(x).topk(8, -1).values), "normalised or ordered along this dimension"),
    "maximum over features": (
        lambda m, x: m.o(m.i(x) * m.i(x).argmax(-1, keepdim=True)),
        "compared or normalised along this dimension",
    ),
    "features by index": (lambda m, x: m.o(m.i(x)[..., m.idx]), "looked up by index"),
    "features rolled across tokens": (lambda m, x: m.o(m.i(x).roll(1)), "rolled across dimensions"),
    "every third feature": (lambda m, x: m.o(m.i(x)[..., ::3].repeat(1, 1, 3)[..., :8]), "taken in steps"),
    "the output itself": (lambda m, x: m.i(x), "an output of the network keeps its size"),
}


@pytest.mark.parametrize("name", HELD)
def test_rules_that_hold_a_dim_say_why(lab: Any, name: str) -> None:
    forward, reason = HELD[name]
    module = lab.network(forward, i=nn.Linear(16, 8), o=nn.Linear(8, 2), idx=torch.arange(8))
    coupling = lab.analyse(module, torch.randn(2, 5, 16))
    assert lab.sizes(coupling) == {}
    assert next(f.reason for f in coupling.frozen if f.tensor == "i.weight" and f.dim == 0) == reason


def test_outputs_shrink_only_when_asked(lab: Any) -> None:
    module = lab.network(
        lambda m, x: {"a": m.a(x), "b": [m.b(m.c(x))]}, a=nn.Linear(4, 8), b=nn.Linear(6, 8), c=nn.Linear(4, 6)
    )
    x = torch.randn(2, 4)
    fixed = lab.prune(module, x)
    assert lab.sizes(fixed.coupling) == {"c": 6}
    assert [y.shape[1] for y in lab.leaves(fixed.sliced(x))] == [8, 8]
    free = lab.prune(module, x, ratio=0.5, prune_outputs=True)
    assert lab.sizes(free.coupling) == {"a": 8, "b": 8, "c": 6}
    assert free.verification.passed
    assert [y.shape[1] for y in lab.leaves(free.sliced(x))] == [4, 4]


def test_two_inputs_and_unused_branch(lab: Any) -> None:
    module = lab.network(
        lambda m, x, y: (m.j(x), m.o(torch.cat([m.i(x), m.k(y)], -1)))[1],
        i=nn.Linear(4, 8),
        j=nn.Linear(4, 3),
        k=nn.Linear(6, 5),
        o=nn.Linear(13, 2),
    )
    coupling = lab.check(module, torch.randn(2, 4), torch.randn(2, 6), groups={"i": 8, "k": 5})
    assert set(lab.sizes(coupling)) == {"i", "k"}


def test_embedding_keeps_rows_and_shrinks_columns(lab: Any) -> None:
    module = lab.network(lambda m, i: m.o(m.n(m.e(i))), e=nn.Embedding(11, 16), n=nn.LayerNorm(16), o=nn.Linear(16, 3))
    coupling = lab.check(module, torch.randint(11, (2, 5)), groups={"n": 16}, zeroing=False)
    members = {(m.tensor, m.dim) for m in coupling.groups[0].members}
    assert members == {("e.weight", 1), ("n.weight", 0), ("n.bias", 0), ("o.weight", 1)}


def test_model_that_fixes_its_batch(lab: Any) -> None:
    module = lab.network(lambda m, x: m.o(m.i(x).view(2, 5, 8)), i=nn.Linear(16, 8), o=nn.Linear(8, 2))
    coupling = lab.check(module, torch.randn(2, 5, 16), groups={"i": 8})
    assert not coupling.program.dynamic_batch


def test_batch_norm_in_training_mode(lab: Any) -> None:
    module = lab.randomised(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train())
    before = {n: b.clone() for n, b in module.named_buffers()}
    outcome = lab.prune(module, torch.randn(2, 4))
    assert outcome.verification.passed
    assert all(torch.equal(b, before[n]) for n, b in module.named_buffers())


def test_only_the_type_of_another_tensor_is_read(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        return m.b(h * torch.ones(x.shape[0], 1).type_as(h))

    lab.check(lab.network(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2)), torch.randn(2, 3), groups={"a": 6})


def test_a_repetition_that_names_its_result_size(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.b(m.a(x).repeat_interleave(2, dim=1, output_size=12))

    lab.check(lab.network(forward, a=nn.Linear(3, 6), b=nn.Linear(12, 2)), torch.randn(2, 3), groups={"a": 6})


def test_a_table_of_places_is_looked_up_by_a_repeated_index(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        places = torch.arange(x.shape[1])[None].repeat(x.shape[0], 1)
        return m.b(m.a(x) + m.table[places])

    module = lab.network(forward, a=nn.Linear(3, 6), table=nn.Parameter(torch.randn(5, 6)), b=nn.Linear(6, 2))
    lab.check(module, torch.randn(2, 4, 3), groups={"a": 6})


def test_a_piece_whose_place_is_a_tensor(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        return m.b(torch.narrow(h, 1, m.place, 2)), m.c(torch.narrow(h, 2, m.place, 4))

    parts = {"a": nn.Linear(3, 6), "b": nn.Linear(6, 2), "c": nn.Linear(4, 2), "place": torch.tensor(1)}
    coupling = lab.analyse(lab.network(forward, **parts), torch.randn(2, 4, 3))
    assert coupling.groups == ()
    assert {f.reason for f in coupling.frozen if f.tensor == "a.weight" and f.dim == 0} == {
        "cut at a place that the data names"
    }
    free = lab.network(lambda m, x: m.b(torch.narrow(m.a(x), 1, m.place, 2)), **parts)
    lab.check(free, torch.randn(2, 4, 3), groups={"a": 6})


def test_a_piece_set_to_zero_in_place(lab: Any) -> None:
    """The bias of the keys, as Swin V2 clears it."""

    def forward(m: Any, x: Tensor) -> Any:
        bias = m.bias.clone()
        bias[4:8].zero_()
        q, k, v = torch.nn.functional.linear(x, m.weight, bias).chunk(3, -1)
        return m.o(q * k + v)

    parts = {"weight": nn.Parameter(torch.randn(12, 3)), "bias": nn.Parameter(torch.randn(12)), "o": nn.Linear(4, 2)}
    lab.check(lab.network(forward, **parts), torch.randn(2, 3), groups={"weight": 4}, zeroing=False)
