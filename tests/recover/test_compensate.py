from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compress.budget import Budget
from compress.checkpoint.read import load_model
from compress.data import load_data
from compress.evaluate import evaluate
from compress.graph import Coupling, analyse, slice_graph, slice_verified, trace
from compress.plugin import Context, make_plan
from compress.progress import Silent
from compress.recover import Compensation, compensate
from compress.registry import create

# The package gives its function the name of this module
recovery = importlib.import_module("compress.recover.compensate")
T = TypeVar("T")
SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def refit(
    module: nn.Module, x: Tensor, removed: Mapping[str, Sequence[int]], ridge: float = 1e-12, batch: int = 16
) -> tuple[Coupling, fx.GraphModule, Compensation]:
    """The analysed network, the sliced one and the refitted one."""
    coupling = analyse(trace(module.eval(), (x[:2],)))
    alive = coupling.alive({name: np.array(units) for name, units in removed.items()})
    sliced = slice_graph(coupling, alive)
    return coupling, sliced, compensate(coupling, alive, sliced, x, ridge=ridge, batch=batch)


def difference(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max() / a(x).abs().max())


def duplicated() -> nn.Sequential:
    """Channels 3 and 4 of the first convolution, and 1 of the second, are copies of others."""
    net = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(80, 3)),
    )
    with torch.no_grad():
        for layer, copied, original in ((net[0], 3, 0), (net[0], 4, 2), (net[2], 1, 0)):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            layer.weight[copied] = layer.weight[original]
            layer.bias[copied] = layer.bias[original]
    return net


def test_nothing_removed_changes_next_to_nothing() -> None:
    net, x = duplicated(), torch.randn(80, 2, 4, 4)
    _, _, done = refit(net, x, {}, ridge=recovery.RIDGE)
    assert difference(net, done.module, x) < 1e-5
    assert done.samples == 80


def test_a_redundant_network_is_recovered_exactly() -> None:
    net, x = duplicated(), torch.randn(160, 2, 4, 4)
    _, sliced, done = refit(net, x, {"0": [3, 4], "2": [1]})
    fresh = torch.randn(20, 2, 4, 4)
    assert difference(net, sliced, fresh) > 0.05
    assert difference(net, done.module, fresh) < 1e-5
    assert done.refitted["2.weight"] < 1e-8


def test_the_default_ridge_recovers_almost_all() -> None:
    net, x = duplicated(), torch.randn(160, 2, 4, 4)
    _, sliced, done = refit(net, x, {"0": [3, 4], "2": [1]}, ridge=recovery.RIDGE)
    fresh = torch.randn(20, 2, 4, 4)
    assert difference(net, done.module, fresh) < 0.01 * difference(net, sliced, fresh)


class TimeFirst(nn.Module):
    """Layers that read (time, batch, features), as `nn.MultiheadAttention` does inside."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.b(torch.relu(self.a(x.transpose(0, 1)))))
        out: Tensor = self.c(h).transpose(0, 1).mean(1)
        return out


def test_layers_that_do_not_have_the_batch_first_are_refitted() -> None:
    net, x = TimeFirst(), torch.randn(200, 7, 4)
    with torch.no_grad():  # a copy in each layer, which the refit of the next makes up for
        for layer in (net.a, net.b):
            layer.weight[3], layer.bias[3] = layer.weight[0], layer.bias[0]
    _, sliced, done = refit(net, x, {"a": [3], "b": [3]})
    assert difference(net, sliced, x) > 0.05
    assert difference(net, done.module, x) < 1e-5


class LossyShortcut(nn.Module):
    """The shortcut loses rank; the layer beside it sees the input itself and can make up for all of it."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 3, 1)
        self.side = nn.Conv2d(4, 3, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.uniform_(self.norm.bias)
            self.norm.running_mean = torch.randn(3)
            self.norm.running_var = torch.rand(3) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.up(self.down(x))
        return torch.add(shortcut, self.norm(self.side(x)))


@pytest.mark.parametrize("norm", [False, True])
def test_a_layer_makes_up_for_what_its_shortcut_lost(norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = LossyShortcut(norm), torch.randn(60, 4, 3, 3)
    removed = {"down": [0, 1, 2, 3, 4]}  # rank 1 is left of rank 3
    _, _, done = refit(net, x, removed)
    assert difference(net, done.module, torch.randn(10, 4, 3, 3)) < 1e-5
    monkeypatch.setattr(recovery, "shortcut", lambda *_: None)
    _, _, without = refit(net, x, removed)
    assert difference(net, without.module, x) > 0.1


def test_a_channel_that_norm_nearly_switches_off_is_not_blown_up() -> None:
    net, x = LossyShortcut(norm=True), torch.randn(60, 4, 3, 3)
    with torch.no_grad():
        net.norm.get_parameter("weight")[1] = 1e-9
    _, _, done = refit(net, x, {"down": [0, 1, 2]})
    assert float(done.module.get_parameter("side.weight").detach().abs().max()) < 100


class Normed(nn.Module):
    """Convolution without a bias, then batch norm; channel 2 of the first layer is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1)
        self.second = nn.Conv2d(5, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        with torch.no_grad():
            self.first.weight[2] = 0
            self.first.bias[2] = 1.5  # type: ignore[index]
        self.norm.running_mean = torch.randn(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.first(x))))


def test_a_layer_without_bias_moves_the_mean_of_its_norm() -> None:
    net, x = Normed(), torch.randn(80, 3, 3, 3)
    before = net.norm.running_mean
    assert before is not None
    _, sliced, done = refit(net, x, {"first": [2]})
    lost = 1.5 * net.second.weight[:, 2].flatten()
    torch.testing.assert_close(done.module.get_buffer("norm.running_mean"), before - lost, rtol=1e-4, atol=1e-4)
    assert torch.equal(sliced.get_buffer("norm.running_mean"), before)
    assert difference(net, done.module, torch.randn(9, 3, 3, 3)) < 1e-4


def test_a_refit_that_fails_on_held_out_data_is_not_taken() -> None:
    net = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 8))
    x = torch.randn(60, 40)  # 48 rows to fit 47 inputs and a bias: exact there, far off elsewhere
    _, sliced, done = refit(net, x, {"0": range(13)}, batch=4)
    assert done.skipped["2.weight"] == "a refit does not help on held-out data"
    assert torch.equal(done.module.get_parameter("2.weight"), sliced.get_parameter("2.weight"))


def test_nothing_that_goes_in_is_changed() -> None:
    net, x = duplicated(), torch.randn(48, 2, 4, 4)
    kept, data = copy.deepcopy(net.state_dict()), x.clone()
    coupling = analyse(trace(net.eval(), (x[:2],)))
    alive = coupling.alive({"0": np.array([0, 1])})
    sliced = slice_graph(coupling, alive)
    state = {n: t.clone() for n, t in sliced.state_dict().items()}
    done = compensate(coupling, alive, sliced, x)
    assert all(torch.equal(net.state_dict()[n], t) for n, t in kept.items())
    assert all(torch.equal(sliced.state_dict()[n], t) for n, t in state.items())
    assert torch.equal(x, data)
    assert any(not torch.equal(done.module.state_dict()[n], t) for n, t in state.items())


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.mul_(2)).relu_())


def test_samples_survive_a_network_that_works_in_place() -> None:
    net, x = InPlace(), torch.randn(40, 4)
    data = x.clone()
    _, _, done = refit(net, x, {"first": [1]})
    assert torch.equal(x, data)
    assert "second.weight" in done.refitted or "second.weight" in done.skipped


def test_a_batch_that_is_not_the_first_dim() -> None:
    """Attention of PyTorch puts the sequence first inside, whatever it is given."""
    net = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Linear(8, 3))
    coupling = analyse(trace(net.eval(), (torch.randn(2, 5, 4),)))
    removed = {g.name: [0, 5] for g in coupling.groups if "in_proj" in g.name and g.size == 8}  # one of each head
    _, sliced, done = refit(net, torch.randn(80, 5, 4), removed)
    assert any("in_proj" in name or "self_attn" in name for name in done.refitted)
    x = torch.randn(7, 5, 4)
    assert difference(net, done.module, x) <= difference(net, sliced, x) + 1e-3


class Obstacles(nn.Module):
    """A weight that two layers share, and one whose padding is a word."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same")
        self.shared = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(torch.relu(self.first(x))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_layers_that_cannot_be_refitted_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_FEATURES", 3)
    _, _, done = refit(Obstacles(), torch.randn(40, 2, 5, 5), {})
    assert done.skipped == {
        "first.weight": "padding by name",
        "shared.weight": "its weight is shared",
        "head.weight": "4 inputs are too many for a normal matrix",
    }


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[tuple[str, int | None, int]] = []

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        passed = list(items)
        self.said.append((text, total, len(passed)))
        return iter(passed)


def test_progress_counts_the_layers() -> None:
    net, x = duplicated(), torch.randn(32, 2, 4, 4)
    coupling = analyse(trace(net.eval(), (x[:2],)))
    alive, told = coupling.alive({}), Told()
    compensate(coupling, alive, slice_graph(coupling, alive), x, progress=told)
    assert told.said == [("refitting", 3, 3)]


def test_half_of_the_residual_network_goes_and_its_accuracy_stays() -> None:
    loaded = load_model(SAMPLES / "digits_resnet.safetensors", arch=f"{SAMPLES}/architectures.py:residual_cnn")
    data = load_data("digits").fit_to((1, 8, 8))
    assert data.train is not None
    coupling = analyse(trace(loaded.module, (torch.randn(2, 1, 8, 8),)))
    _, method = create("dependency", {})
    plan = make_plan(method, Context(coupling, Budget("ratio", 0.5)))
    found = slice_verified(coupling, plan.removed)
    done = compensate(coupling, found.alive, found.module, data.train.inputs[:600])
    before, after = (evaluate(m, data.test).accuracy for m in (found.module, done.module))
    assert before < 0.9
    assert after >= 0.97
    assert len(done.refitted) >= 8
