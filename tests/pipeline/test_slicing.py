"""Slices that fail are taken back, and a kept module shrinks only as far as its code follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.graph import Coupling, Verification, analyse, slice_module, slice_verified, trace, verify
from compress.pipeline import slicing
from compress.pipeline.slicing import slice_units, slice_weights
from compress.plan import Plan
from compress.progress import Silent


class News(Silent):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    hidden = (nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(5, 3))


def analysed(module: nn.Module, *shape: int) -> Coupling:
    return analyse(trace(module.eval(), (torch.randn(2, *shape),)))


REMOVED = {"0": np.array([1, 5]), "2": np.array([0]), "4": np.array([4])}


def failing(bad: Callable[[Coupling, Any], bool]) -> Callable[..., Verification]:
    """A check that also fails where `bad` says so of what is alive."""

    def check(coupling: Coupling, alive: Any, sliced: Any) -> Verification:
        if bad(coupling, alive):
            return Verification(1.0, 1e-9)
        return verify(coupling, alive, sliced)

    return check


def shrinks(coupling: Coupling, alive: Any, name: str) -> bool:
    return f"{name}.weight" in coupling.kept(alive) and 0 in coupling.kept(alive)[f"{name}.weight"]


def test_a_slice_that_passes_is_whole() -> None:
    net = network()
    coupling = analysed(net, 4)
    news = News()
    done = slice_units(coupling, Plan(REMOVED, notes={"2": {"a": 1}}), net, False, news)
    assert dict(done.plan.removed) == REMOVED
    assert done.plan.notes == {"2": {"a": 1}}
    assert (done.rolled_back, news.warnings) == ({}, [])
    assert done.error < 1e-9
    assert done.in_place is not None and done.in_place.module is not None
    x = torch.randn(5, 4)
    torch.testing.assert_close(done.in_place.module(x), done.module(x))
    assert done.module.get_parameter("2.weight").shape == (5, 6)


def test_a_group_that_fails_is_left_whole_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    coupling = analysed(net, 4)
    check = failing(lambda c, alive: shrinks(c, alive, "2"))
    monkeypatch.setattr(slicing, "slice_verified", lambda c, removed: slice_verified(c, removed, check))
    news = News()
    done = slice_units(coupling, Plan(REMOVED), net, False, news)
    assert set(done.plan.removed) == {"0", "4"}
    assert done.rolled_back == {"2": "outputs differ from the masked original by 1.0e+00"}
    assert news.warnings == ["2 keeps its size: outputs differ from the masked original by 1.0e+00"]
    shapes = [done.module.get_parameter(f"{i}.weight").shape for i in (0, 2, 4, 6)]
    assert shapes == [(6, 4), (6, 6), (4, 6), (3, 4)]
    kept = coupling.kept(done.alive)
    assert kept["0.weight"][0].tolist() == [0, 2, 3, 4, 6, 7]
    assert "2.bias" not in kept


def test_two_that_fail_only_together() -> None:
    coupling = analysed(network(), 4)
    check = failing(lambda c, alive: shrinks(c, alive, "0") and shrinks(c, alive, "4"))
    done = slice_verified(coupling, REMOVED, check)
    assert not {"0", "4"} <= set(done.removed)
    assert set(done.removed) | set(done.rolled_back) == {"0", "2", "4"}
    assert done.verification.passed


def test_everything_fails() -> None:
    coupling = analysed(network(), 4)
    done = slice_verified(coupling, REMOVED, failing(lambda c, alive: bool(c.kept(alive))))
    assert dict(done.removed) == {}
    assert set(done.rolled_back) == {"0", "2", "4"}
    assert done.module.get_parameter("0.weight").shape == (8, 4)


class Stubborn(nn.Module):
    """`pair` is as wide as a number in the code says; the rest follows its layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.pair, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pair(torch.relu(self.stem(x)))
        return self.head(torch.relu(y * torch.ones(6)))


def test_a_module_keeps_what_its_code_cannot_represent() -> None:
    net = Stubborn()
    coupling = analysed(net, 4)
    removed = {"stem": np.array([0, 1, 2]), "pair": np.array([3])}
    news = News()
    done = slice_units(coupling, Plan(removed), net, True, news)
    assert set(done.plan.removed) == {"stem"}
    assert done.in_place is not None and done.in_place.module is not None
    assert done.in_place.changed == {"stem.out_features": (8, 5), "pair.in_features": (8, 5)}
    assert done.rolled_back["pair"].startswith("the module cannot represent it: ")
    assert news.warnings == ["pair keeps its size: " + done.rolled_back["pair"]]
    x = torch.randn(3, 4)
    torch.testing.assert_close(done.in_place.module(x), done.module(x))


class Split(nn.Module):
    """Views that the code sizes by numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.wide, self.head = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(torch.relu(self.inner(x)))
        return self.head(torch.relu(y.view(-1, 2, 4)).transpose(1, 2).reshape(-1, 8))


def test_sizes_written_in_the_code_hold_a_module_but_not_its_graph() -> None:
    net = Split()
    coupling = analysed(net, 4)
    plan = Plan({"inner": np.array([0, 3]), "wide": np.array([1])})  # a column of both rows
    free = slice_units(coupling, plan, net, False, Silent())
    assert set(free.plan.removed) == {"inner", "wide"}
    assert free.in_place is not None and free.in_place.module is None
    assert "do not follow the slice" in free.in_place.problem
    news = News()
    held = slice_units(coupling, plan, net, True, news)
    assert set(held.plan.removed) == {"inner"}
    assert held.in_place is not None and held.in_place.module is not None
    assert held.rolled_back["wide"].startswith("the module cannot represent it: ")
    assert news.warnings == ["wide keeps its size: " + held.rolled_back["wide"]]


def test_parts_that_the_module_takes_alone_but_not_together(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    coupling = analysed(net, 4)

    def refusing(module: nn.Module, c: Coupling, alive: Any, sliced: Any) -> Any:
        outcome = slice_module(module, c, alive, sliced)
        together = shrinks(c, alive, "0") and shrinks(c, alive, "4")
        return type(outcome)(None, {}, "not both") if together else outcome

    monkeypatch.setattr(slicing, "slice_module", refusing)
    done = slice_units(coupling, Plan(REMOVED), net, True, Silent())
    assert set(done.plan.removed) == {"0", "2"}
    assert done.rolled_back == {"4": "the module cannot represent it: not both"}
    assert done.in_place is not None and done.in_place.module is not None


def test_a_graph_needs_no_module() -> None:
    coupling = analysed(network(), 4)
    done = slice_units(coupling, Plan(REMOVED), coupling.program.module, True, Silent())
    assert done.in_place is None
    assert set(done.plan.removed) == set(REMOVED)


def masks(module: nn.Module, **rows: int) -> Mapping[str, Tensor]:
    found = {}
    for name, row in rows.items():
        weight = module.get_parameter(f"{name.lstrip('_')}.weight")
        mask = torch.ones(weight.shape, dtype=torch.bool)
        mask[row] = False
        found[f"{name.lstrip('_')}.weight"] = mask
    return found


def test_masked_weights_are_zero_and_dead_units_go_exactly() -> None:
    net = network()
    coupling = analysed(net, 4)
    plan = Plan(masks=masks(net, _2=3))
    done = slice_weights(coupling, plan)
    assert {n: list(u) for n, u in done.plan.removed.items()} == {"2": [3]}
    x = torch.randn(6, 4)
    with torch.no_grad():
        net.get_parameter("2.weight")[3] = 0
        torch.testing.assert_close(done.module(x), net(x), rtol=1e-5, atol=1e-6)
    assert done.module.get_parameter("2.weight").shape == (5, 8)
    assert done.plan.masks.keys() == plan.masks.keys()
