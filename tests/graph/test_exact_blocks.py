"""Grouped convolutions and products by head: exact at any ratio, whatever stands before and behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph import parameters, slice_module
from compress.graph.blocks import weight_blocks

X = (2, 3, 8, 8)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


@dataclass(frozen=True)
class Case:
    """A network, its example input, the groups to find, and the weights whose columns are counted by group."""

    name: str
    forward: Callable[..., Any]
    parts: Callable[[], dict[str, Any]]
    groups: dict[str, int]
    blocked: dict[str, int]
    shape: tuple[int, ...] = X


def in_order(m: Any, x: Tensor) -> Tensor:
    for layer in m.children():
        x = layer(x)
    return x


def resnext_parts() -> dict[str, Any]:
    layers = {"a": conv(3, 8), "b": conv(8, 8, 1), "c": conv(8, 8, groups=4), "d": conv(8, 8, 1)}
    return {**layers, "head": conv(8, 2)}


def chain(name: str, *layers: Callable[[], nn.Module], groups: dict[str, int], blocked: dict[str, int]) -> Case:
    shape = {"1d": (2, 3, 16), "3d": (2, 3, 6, 6, 6)}.get(name, X)
    return Case(name, in_order, lambda: {f"l{i}": make() for i, make in enumerate(layers)}, groups, blocked, shape)


def resnext(m: Any, x: Tensor) -> Any:
    x = F.relu(m.a(x))
    return m.head(F.relu(x + m.d(F.relu(m.c(F.relu(m.b(x)))))))


def shuffle(m: Any, x: Tensor) -> Any:
    x = m.a(x)
    n, c, h, w = x.shape
    return m.head(m.c(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


def autoencoder(m: Any, x: Tensor) -> Any:
    x = F.relu(F.conv2d(m.a(x), m.w, groups=2, padding=1))
    return m.head(F.conv_transpose2d(x, m.w, groups=2, padding=1))


def standardised(m: Any, x: Tensor) -> Any:
    return m.head(F.conv2d(m.a(x), m.w * torch.sigmoid(m.gain), groups=2, padding=1))


def two_readers(m: Any, x: Tensor) -> Any:
    x = m.a(x)
    return m.head(F.conv2d(x, m.w, groups=2, padding=1) + F.conv2d(x[:, :4], m.w, padding=1))


def heads(m: Any, x: Tensor) -> Any:
    q, k, v = (torch.einsum("nte,hed->nhtd", x, w) for w in (m.q, m.k, m.v))
    y = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
    return m.head(torch.einsum("nhtd,hde->nte", y, m.o))


def head_parts() -> dict[str, Any]:
    shapes = {"q": (4, 8, 6), "k": (4, 8, 6), "v": (4, 8, 6), "o": (4, 6, 8)}
    return {**{n: nn.Parameter(torch.randn(s)) for n, s in shapes.items()}, "head": nn.Linear(8, 2), "groups": 4}


def weight_parts() -> dict[str, Any]:
    return {"a": conv(3, 8), "w": nn.Parameter(torch.randn(8, 4, 3, 3)), "head": conv(8, 2), "groups": 2}


CASES = [
    chain(
        "transposed",
        lambda: conv(3, 8),
        lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=2),
        lambda: conv(12, 2),
        groups={"l0": 8, "l0.blocks": 2, "l1": 12},
        blocked={"l1.weight": 2},
    ),
    chain(
        "transposed depth multiplier",
        lambda: conv(3, 4),
        lambda: nn.ConvTranspose2d(4, 12, 2, 2, groups=4),
        lambda: conv(12, 2),
        groups={"l0": 4, "l1": 12},
        blocked={"l1.weight": 4},
    ),
    chain(
        "1d",
        lambda: nn.Conv1d(3, 8, 3),
        lambda: nn.Conv1d(8, 12, 3, groups=2),
        lambda: nn.Conv1d(12, 2, 3),
        groups={"l0": 8, "l0.blocks": 2, "l1": 12},
        blocked={"l1.weight": 2},
    ),
    chain(
        "3d",
        lambda: nn.Conv3d(3, 8, 3),
        lambda: nn.Conv3d(8, 4, 3, groups=2),
        lambda: nn.Conv3d(4, 2, 1),
        groups={"l0": 8, "l0.blocks": 2, "l1": 4},
        blocked={"l1.weight": 2},
    ),
    chain(
        "two in a row",
        lambda: conv(3, 12),
        lambda: conv(12, 12, groups=3),
        lambda: conv(12, 6, groups=3),
        lambda: conv(6, 2),
        groups={"l0": 12, "l0.blocks": 3, "l1": 12, "l2": 6},
        blocked={"l1.weight": 3, "l2.weight": 3},
    ),
    chain(
        "finer groups behind",
        lambda: conv(3, 16),
        lambda: conv(16, 16, groups=2),
        lambda: conv(16, 16, groups=4),
        lambda: conv(16, 2),
        groups={"l0": 16, "l0.blocks": 2, "l1": 16, "l2": 16},
        blocked={"l1.weight": 2, "l2.weight": 4},
    ),
    chain(
        "coarser groups behind",
        lambda: conv(3, 16),
        lambda: conv(16, 16, groups=4),
        lambda: conv(16, 16, groups=2),
        lambda: conv(16, 2),
        groups={"l0": 16, "l1": 16, "l1.blocks": 2, "l2": 16},
        blocked={"l1.weight": 4, "l2.weight": 2},
    ),
    chain(
        "groups of a norm",
        lambda: conv(3, 16),
        lambda: nn.GroupNorm(2, 16),
        lambda: conv(16, 16, groups=4),
        lambda: nn.BatchNorm2d(16),
        lambda: conv(16, 2),
        groups={"l0": 16, "l0.blocks": 2, "l2": 16},
        blocked={"l2.weight": 4},
    ),
    Case(
        "resnext",
        resnext,
        resnext_parts,
        {"a": 8, "b": 8, "b.blocks": 4, "c": 8},
        {"c.weight": 4},
    ),
    Case(
        "behind a concat",
        lambda m, x: m.head(m.g(torch.cat([m.a(x), m.b(x)], 1))),
        lambda: {"a": conv(3, 4), "b": conv(3, 12), "g": conv(16, 8, groups=2), "head": conv(8, 2)},
        {"a": 4, "b": 12, "g": 8},
        {"g.weight": 2},
    ),
    Case(
        "behind a split",
        lambda m, x: m.head(m.g(m.a(x).split(8, 1)[0]) * m.a(x).split(8, 1)[1]),
        lambda: {"a": conv(3, 16), "g": conv(8, 8, groups=2), "head": conv(8, 2)},
        {"a": 8, "a#2": 8},
        {"g.weight": 2},
    ),
    Case(
        "behind a channel shuffle",
        shuffle,
        lambda: {"a": conv(3, 8), "c": conv(8, 8, groups=2), "head": conv(8, 2)},
        {"a": 4, "c": 8},
        {"c.weight": 2},
    ),
    Case("heads of their own", heads, head_parts, {"q#2": 24, "v": 24, "o": 8}, dict.fromkeys("qkvo", 4), (2, 5, 8)),
    Case(
        "products by head",
        lambda m, x: m.head((torch.relu(m.i(x).unflatten(2, (4, 4)).transpose(1, 2) @ m.a) @ m.b).flatten(1)),
        lambda: {
            "i": nn.Linear(8, 16),
            "a": nn.Parameter(torch.randn(4, 4, 6)),
            "b": nn.Parameter(torch.randn(4, 6, 4)),
            "head": nn.Linear(80, 2),
            "groups": 4,
        },
        {"i": 16, "a": 24, "b": 16},
        {"a": 4, "b": 4},
        (2, 5, 8),
    ),
    Case("one weight, twice", autoencoder, weight_parts, {"a": 8}, {"w": 2}),
    Case(
        "computed weight",
        standardised,
        lambda: {**weight_parts(), "gain": nn.Parameter(torch.randn(8, 1, 1, 1))},
        {"a": 8, "w": 8},
        {"w": 2},
    ),
    Case("a weight with other readers", two_readers, weight_parts, {"a": 4, "w": 8}, {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_case_is_exact(lab: Any, case: Case) -> None:
    module = lab.network(case.forward, **case.parts())
    x = torch.randn(case.shape)
    coupling = lab.analyse(module, x)
    sizes = lab.sizes(coupling)
    assert {n: sizes.get(n) for n in case.groups} == case.groups, sizes
    assert {s.tensor: s.blocks for s in coupling.flow.slots if s.blocks > 1} == case.blocked
    for ratio in (0.3, 0.5, 0.9):
        outcome = lab.cut(module, coupling, ratio)
        assert outcome.verification.passed, outcome.verification
        shapes = {n: tuple(p.shape) for n, p in outcome.sliced.named_parameters()}
        assert sum(map(int, map(np.prod, shapes.values()))) == parameters(coupling, outcome.alive)
        if case.name != "groups of a norm":  # statistics count what is zero
            assert lab.zeroing_error(outcome, x) < 1e-9


def test_a_module_with_groups_is_sliced_in_place(lab: Any) -> None:
    case = next(c for c in CASES if c.name == "resnext")
    module = lab.network(case.forward, **case.parts())
    x = torch.randn(X)
    outcome = lab.prune(module, x, ratio=0.5)
    found = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), outcome.sliced(x))


def test_weights_are_told_by_all_their_uses(lab: Any) -> None:
    def counts(name: str) -> list[int]:
        case = next(c for c in CASES if c.name == name)
        program = lab.analyse(lab.network(case.forward, **case.parts()), torch.randn(case.shape)).program
        return sorted(blocks.count for blocks in weight_blocks(program.module).values())

    assert counts("two in a row") == [3, 3]
    assert counts("one weight, twice") == [2]
    assert counts("a weight with other readers") == []
