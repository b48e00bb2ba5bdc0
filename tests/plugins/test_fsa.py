"""FSA as a pruner: the share it finds, what it keeps at that share, and the features that go."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import CompressError, InputError, ModelError
from compress.graph import analyse, remove_dead, slice_verified, trace
from compress.plugin import Context, FSASettings, make_plan, select_features
from compress.testing import check_plugin
from compress_plugins.fsa import FSA, largest

SIGNAL = [1, 4, 8]


@dataclass(frozen=True)
class Samples:
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Data:
    train: Samples


def data() -> Data:
    """Ten features of which three tell the class, one of four."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 4
    x = torch.randn(400, 10, generator=generator)
    for number, feature in enumerate(SIGNAL):
        x[:, feature] += 4.0 * (y == number)
    return Data(Samples(x, y))


def context(prune_inputs: bool = True, **options: Any) -> Context:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    program = trace(nn.Sequential(*layers).eval(), (torch.randn(2, 10),))
    return Context(analyse(program, prune_inputs=prune_inputs), data=data(), **options)


def test_the_contract() -> None:
    check_plugin(FSA(iterations=10, samples=40))
    check_plugin(FSA(keep=0.5))


def test_the_share_is_the_smallest_in_reach() -> None:
    plan = make_plan(FSA(), context())
    note = plan.notes["compression factor"]
    assert note["kept"] == 0.4
    accuracies = [note[f"accuracy with {c} of the features"] for c in ("20%", "40%", "60%", "80%", "100%")]
    assert accuracies[0] < accuracies[-1] - 0.01 <= accuracies[1]


def test_features_that_tell_nothing_go() -> None:
    here = context()
    gone = make_plan(FSA(keep=0.3), here).removed["kept_inputs"]
    assert gone.tolist() == [i for i in range(10) if i not in SIGNAL]
    x, y = here.samples(400)
    chosen = select_features(x.numpy(), y.numpy(), 4, FSASettings(keep=0.5, iterations=100)).selected
    gone = make_plan(FSA(keep=0.5, samples=400), here).removed["kept_inputs"]
    assert sorted([*chosen, *gone]) == list(range(10))
    assert "kept_inputs" not in make_plan(FSA(keep=0.3), context(prune_inputs=False)).removed


def test_layers_behind_the_first_keep_the_share() -> None:
    here = context()
    plan = make_plan(FSA(keep=0.4), here)
    done = slice_verified(here.coupling, plan.removed)
    assert not done.rolled_back
    assert done.module.get_parameter("1.weight").shape[1] == 4  # input features
    for name in ("3.weight", "5.weight"):
        before, after = here.weight(name).numel(), done.module.get_parameter(name).numel()
        assert 0.25 * before < after <= 0.4 * before
    single = make_plan(FSA(keep=0.4), context(granularity="weight"))
    assert {n: int(m.sum()) for n, m in single.masks.items()} == {"1.weight": 80, "3.weight": 128, "5.weight": 25}


class Mirrored(nn.Module):
    """One weight, which reads the input and is read from behind again."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(torch.sigmoid(self.only(x)), self.only.weight.t())


def test_a_network_of_first_layers_says_so() -> None:
    here = Context(analyse(trace(Mirrored().eval(), (torch.randn(2, 10),))), data=data())
    with pytest.raises(ModelError, match="leaves layers that read the model's input whole, and no other"):
        make_plan(FSA(keep=0.4), here)


def test_single_weights_and_features_leave_together() -> None:
    here = context(granularity="weight")
    plan = make_plan(FSA(keep=0.3), here)
    dead = remove_dead(here.coupling, plan.masks)
    assert dead.verification.passed
    assert dead.module.get_buffer("kept_inputs").tolist() == SIGNAL


def test_features_of_a_network_that_lost_some_already() -> None:
    """Units count what is left, and samples still hold everything."""
    first = context()
    small = slice_verified(first.coupling, {"kept_inputs": np.array([0, 2, 5])}).module
    coupling = analyse(trace(small, (torch.randn(2, 10),)), prune_inputs=True)
    gone = make_plan(FSA(keep=0.45), dataclasses.replace(first, coupling=coupling)).removed["kept_inputs"]
    assert np.delete([1, 3, 4, 6, 7, 8, 9], gone).tolist() == SIGNAL


def test_nothing_goes_where_every_feature_counts() -> None:
    found = make_plan(FSA(tolerance=0.0), dataclasses.replace(context(), data=all_needed()))
    assert found.empty
    assert "no smaller share" in found.notes["compression factor"]["warning"]


def all_needed() -> Data:
    """Ten classes, each told by one feature of ten."""
    y = torch.arange(400) % 10
    return Data(Samples(3 * nn.functional.one_hot(y, 10) + torch.randn(400, 10) / 2, y))


def test_largest_by_hand() -> None:
    assert largest(torch.tensor([[1.0, -3.0], [2.0, 0.5]]), 0.5).tolist() == [[False, True], [True, False]]
    assert int(largest(torch.ones(3, 3), 0.05).sum()) == 1
    assert largest(torch.ones(4), 0.5).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "options",
    [{"keep": 1.0}, {"keep": -0.1}, {"tolerance": 2.0}, {"samples": 2}, {"iterations": 0}, {"lr": 0.0}, {"mu": -1.0}],
)
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FSA(**options)


class TwoInputs(nn.Module):
    """Two layers read the features; neither of their weights is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(10, 6), nn.Linear(10, 8), nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.cat([self.a(x).relu(), self.b(x).relu()], 1))
        return out


def test_all_layers_that_read_the_input_stay_whole() -> None:
    coupling = analyse(trace(TwoInputs().eval(), (torch.randn(2, 10),)))
    plan = make_plan(FSA(keep=0.5), Context(coupling, data=data(), granularity="weight"))
    assert {name: int(mask.sum()) for name, mask in plan.masks.items()} == {"last.weight": 28}


def test_samples_of_one_class_tell_nothing() -> None:
    few = Data(Samples(torch.randn(20, 10), torch.full((20,), 7)))
    with pytest.raises(InputError, match="all 20 training samples that fsa looks at are of class 7"):
        make_plan(FSA(), dataclasses.replace(context(), data=few))
    two = Data(Samples(torch.randn(2, 10), torch.arange(2)))
    with pytest.raises(InputError, match="needs 3 training samples, and there are 2"):
        make_plan(FSA(), dataclasses.replace(context(), data=two))


def test_samples_are_needed() -> None:
    with pytest.raises(CompressError, match="training samples"):
        make_plan(FSA(), dataclasses.replace(context(), data=None))
