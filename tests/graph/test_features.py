"""Input features as units: found behind any wiring, sliced exactly, and once more on the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import Coupling, analyse, remove_dead, slice_module, slice_verified, trace
from compress.graph.double import as_double
from compress.graph.features import select_inputs, selections

GONE = np.array([0, 3, 7])


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


class Dense(nn.Module):
    """Every layer reads the input and what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(12, 8)
        self.b = nn.Linear(20, 6)
        self.c = nn.Linear(26, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.a(x).relu()], 1)
        out: Tensor = self.c(torch.cat([x, self.b(x).relu()], 1))
        return out


class Normed(nn.Module):
    """Statistics by feature, then a residual sum: rows of ``b`` are the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12)
        self.a = nn.Linear(12, 8)
        self.b = nn.Linear(8, 12)
        self.c = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        out: Tensor = self.c(x + self.b(self.a(x).relu()))
        return out


def analysed(module: nn.Module, prune_inputs: bool = True) -> Coupling:
    return analyse(trace(module.eval(), (torch.randn(2, 12),)), prune_inputs=prune_inputs)


def members(coupling: Coupling) -> dict[str, int]:
    return {m.tensor: m.dim for m in coupling.group("kept_inputs").members}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (flat, {"kept_inputs": 0, "1.weight": 1}),
        (Dense, {"kept_inputs": 0, "a.weight": 1, "b.weight": 1, "c.weight": 1}),
        (
            Normed,
            {"kept_inputs": 0, "norm.weight": 0, "norm.bias": 0, "norm.running_mean": 0, "norm.running_var": 0,
             "a.weight": 1, "b.weight": 0, "b.bias": 0, "c.weight": 1},
        ),
    ],
)  # fmt: skip
def test_everything_that_reads_a_feature_goes_with_it(lab: Any, build: Any, expected: dict[str, int]) -> None:
    coupling = analysed(lab.randomised(build()))
    assert members(coupling) == expected
    assert coupling.group("kept_inputs").size == 12
    done = slice_verified(coupling, {"kept_inputs": GONE})
    assert not done.rolled_back
    assert done.module.get_buffer("kept_inputs").tolist() == [1, 2, 4, 5, 6, 8, 9, 10, 11]
    shapes = {n: tuple(p.shape) for n, p in done.module.named_parameters()}
    for name, dim in expected.items():
        if name in shapes:
            before: Tensor = coupling.program.module.get_parameter(name)
            assert before.shape[dim] - shapes[name][dim] == 3


@pytest.mark.parametrize("build", [flat, Dense])
def test_it_computes_what_the_original_does_on_inputs_with_zeros(lab: Any, build: Any) -> None:
    module = lab.randomised(build())
    small = slice_verified(analysed(module), {"kept_inputs": GONE}).module
    x = torch.randn(5, 12, dtype=torch.float64)
    zeroed = x.index_fill(1, torch.as_tensor(GONE), 0)
    torch.testing.assert_close(as_double(small)(x), module.double()(zeroed), rtol=0, atol=1e-12)


def test_nothing_changes_unless_asked() -> None:
    module = flat()
    program = trace(module.eval(), (torch.randn(2, 12),))
    coupling = analyse(program)
    assert coupling.program is program
    assert [g.name for g in coupling.groups] == ["1"]
    chosen = select_inputs(program)
    assert selections(program.module) == [] and selections(chosen.module) == ["kept_inputs"]
    assert chosen.module.get_parameter("1.weight") is program.module.get_parameter("1.weight")
    x = torch.randn(7, 12)
    assert torch.equal(chosen.module(x), module(x))


def test_a_result_can_be_pruned_again() -> None:
    once = slice_verified(analysed(flat()), {"kept_inputs": GONE}).module
    again = analyse(trace(once, (torch.randn(2, 12),)), prune_inputs=True)
    assert {g.name: g.size for g in again.groups} == {"1": 8, "kept_inputs": 9}
    twice = slice_verified(again, {"kept_inputs": np.array([1])}).module
    assert twice.get_buffer("kept_inputs").tolist() == [1, 4, 5, 6, 8, 9, 10, 11]
    assert {g.name for g in analysed(once, prune_inputs=False).groups} == {"1"}


def test_columns_of_zeros_leave_with_their_features() -> None:
    coupling = analysed(flat())
    mask = torch.ones(8, 12, dtype=torch.bool)
    mask[:, GONE] = False
    dead = remove_dead(coupling, {"1.weight": mask})
    assert dead.removed["kept_inputs"].tolist() == GONE.tolist()
    assert dead.verification.error < 1e-12


def test_the_class_of_the_model_takes_every_feature() -> None:
    module = flat()
    coupling = analysed(module)
    done = slice_verified(coupling, {"kept_inputs": GONE})
    assert slice_module(module, coupling, done.alive, done.module).problem == "its forward takes every input feature"


def test_two_tables() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept_inputs = nn.Linear(4, 3)  # a name that is taken
            self.b = nn.Linear(5, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = self.kept_inputs(x) + self.b(y)
            return out

    coupling = analyse(trace(Two().eval(), (torch.randn(2, 4), torch.randn(2, 5))), prune_inputs=True)
    assert {g.name: g.size for g in coupling.groups} == {"kept_inputs_1": 4, "kept_inputs_2": 5}
    done = slice_verified(coupling, {"kept_inputs_1": np.array([0]), "kept_inputs_2": np.array([1, 2])})
    assert done.module(torch.randn(2, 4), torch.randn(2, 5)).shape == (2, 3)
    assert done.verification.passed


def test_features_that_are_compared_stay() -> None:
    coupling = analysed(nn.Sequential(nn.Softmax(1), nn.Linear(12, 8), nn.Linear(8, 3)))
    assert [g.name for g in coupling.groups] == ["1"]
    held = next(f for f in coupling.frozen if f.tensor == "kept_inputs")
    assert (held.indices, held.reason) == (12, "normalised or ordered along this dimension")


@pytest.mark.parametrize(
    ("module", "x"), [(nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5)), (nn.Linear(6, 2), torch.randn(2, 3, 6))]
)
def test_only_tables_have_features(module: nn.Module, x: Tensor) -> None:
    with pytest.raises(ModelError, match="no input of the model is a table of features") as caught:
        analyse(trace(module.eval(), (x,)), prune_inputs=True)
    assert "--input-shape" in caught.value.hint
