"""Network slimming as a training, proximal steps, and how lambda is steered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.counting import count_parameters
from compress.errors import InputError, ModelError
from compress.graph import analyse, trace
from compress.plugin import Context
from compress.recover import Hook
from compress.recover.loop import Loop
from compress.testing import check_plugin
from compress_plugins.annealing import Annealing
from compress_plugins.diffsparse import DiffSparse
from compress_plugins.dsc import DSC
from compress_plugins.proximal import Proximal
from compress_plugins.slim import Slim
from compress_plugins.steering import Steering
from compress_plugins.thresholds import prox_l1
from compress_plugins.wiring import Wiring
from tests.plugins.sparse_networks import SETTINGS, Dense, Residual, coupling, mlp, train


class Rates(Hook):
    """Learning rates and one batch norm's scales before and after every step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rates: list[float] = []
        self.scales: list[torch.Tensor] = []

    def before_step(self, loop: Loop) -> None:
        self.rates.append(loop.optimizer.param_groups[0]["lr"])

    def after_step(self, loop: Loop) -> None:
        self.scales.append(loop.network.get_parameter(self.name).detach().clone())


def test_slimming_cuts_once_in_the_middle() -> None:
    given, eyes = coupling(Residual, torch.float64), Rates("norm.weight")
    done = train(Slim(lam=1e-3), given, hook=eyes, budget=None)
    total = sum(group.size for group in given.groups)
    assert sum(len(units) for units in done.plan.removed.values()) == total // 2
    assert [entry["channels zero"] for entry in done.trained.history] == [0] * 3 + [10] * 4
    assert [entry["lambda"] for entry in done.trained.history] == [1e-3] * 3 + [0] * 4
    assert done.trained.best >= 3 and done.difference() <= 1e-9
    assert eyes.rates[:15] == eyes.rates[15:] and eyes.rates[0] == max(eyes.rates) > 10 * eyes.rates[14]


def test_slimming_ranks_all_layers_together() -> None:
    given = coupling(Residual, torch.float64)
    with torch.no_grad():
        given.program.module.get_parameter("branches.0.1.weight")[:5] = 0.01
    done = train(Slim(keep=0.75), given, budget=None)
    assert done.plan.removed["branches.0.0"].tolist() == [0, 1, 2, 3, 4]


def test_norms_in_front_of_layers() -> None:
    """A channel of a concatenation has a scale in every norm that reads it."""
    given = coupling(Dense, torch.float64)
    method = Slim()
    session = method.start(Context(given))
    network = given.program.module
    scores = session.parts.scores(session.parts.values(session.network))
    reads = [network.get_parameter(f"norms.{i}.weight").detach().abs() for i in range(3)]
    torch.testing.assert_close(scores["stem"], reads[0] + reads[1][:6] + reads[2][:6])
    torch.testing.assert_close(scores["norms.1"], reads[1][6:] + reads[2][6:10])
    torch.testing.assert_close(scores["norms.2"], reads[2][10:])
    assert train(method, given).difference() <= 1e-9


@pytest.mark.parametrize(
    "method",
    [
        Proximal(),
        Proximal(norm="l12", variant="printed", press="all"),
        Proximal(on="filters", norm="l21"),
    ],
    ids=str,
)
def test_proximal_steps(method: Any) -> None:
    done = train(method, coupling(Residual, torch.float64))
    assert done.difference() <= 1e-9 and sum(len(units) for units in done.plan.removed.values()) >= 10


def test_a_proximal_step_follows_every_step() -> None:
    """Of the size of learning rate times lambda: a step without a gradient shows it."""
    given, eyes = coupling(Residual, torch.float64), Rates("norm.weight")
    method = Proximal(lam=2.0, press="all")
    session = method.start(Context(given, has_budget=False))
    before = session.network.get_parameter("norm.weight").detach().clone()

    class Still:
        network, step, total, steps_per_epoch, epoch = session.network, 0, 4, 2, 0
        optimizer = type("O", (), {"param_groups": [{"lr": 0.1}]})

    session.after_step(Still())  # type: ignore[arg-type]
    after = session.network.get_parameter("norm.weight").detach()
    torch.testing.assert_close(after, prox_l1(before, 0.2))
    done = train(method, given, hook=eyes, budget=None)
    assert int((eyes.scales[-1] == 0).sum()) > 0 and done.difference() <= 1e-9


def test_lambda_finds_the_speed() -> None:
    """A mean that falls by lambda / 5 of itself per way, however far off lambda starts."""
    for start in (0.01, 1.0, 100.0):
        steering, mean, steps = Steering(start, 400, 0.9), 2.0, 400
        for i in range(steps):
            steering.look(i / steps, mean)
            mean = max(0.0, mean - steering.lam / 5 / steps)
        assert mean == 0.0
        again = Steering(1.0, steps, 0.9)
        again.load(steering.state())
        assert again.state() == steering.state()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Slim(keep=1.0), "keep: must be above 0 and below 1"),
        (lambda: Slim(finetune=1.0), "finetune: must be from 0 to below 1"),
        (lambda: Proximal(norm="l21"), "a group of scales is a layer"),
        (lambda: Proximal(lam=-1.0), "lam: must be above 0"),
    ],
)
def test_options_that_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_less_than_a_layer_can_keep() -> None:
    with pytest.raises(ModelError, match="cannot be met: the smallest allowed widths") as found:
        Proximal(keep=0.01).start(Context(coupling(mlp), has_budget=False))
    assert (found.value.hint or "").startswith("a larger --keep or budget")


def test_networks_without_norms() -> None:
    with pytest.raises(ModelError, match="no units can be switched off") as found:
        train(Slim(), coupling(mlp), SETTINGS)
    assert "--mode diffsparse" in (found.value.hint or "")


def test_filters_shrink_where_there_is_no_norm() -> None:
    given = coupling(mlp, torch.float64)
    done = train(Proximal(), given, budget=None)
    assert count_parameters(done.sliced) < 0.6 * count_parameters(given.program.module)
    assert "units zero" in done.trained.history[0] and done.difference() <= 1e-9
    with pytest.raises(ModelError, match="no units can be switched off"):
        train(Proximal(on="batchnorm"), coupling(mlp), SETTINGS)


@pytest.mark.parametrize("method", [Annealing, DSC, DiffSparse, Proximal, Slim, Wiring])
def test_two_sizes_are_refused(method: Any) -> None:
    with pytest.raises(InputError, match="--keep and --params both say how much stays"):
        method(keep=0.4).start(Context(coupling(mlp), Budget("params", 0.5)))


@pytest.mark.parametrize("method", [Slim(), Proximal(on="filters", norm="l21")], ids=str)
def test_the_contract(method: Any) -> None:
    check_plugin(method)


def test_filters_compete_by_what_is_usual_in_their_layer() -> None:
    given = coupling(mlp)
    with torch.no_grad():
        given.program.module.get_parameter("0.weight").mul_(0.01)
    session = Proximal().start(Context(given, Budget("ratio", 0.5)))
    lost = {name: len(units) for name, units in session.wanted.items()}
    assert sum(lost.values()) == 16 and lost["0"] <= 13 and lost["2"] >= 3  # by norms as they are 16 and 0


class Recurrent(nn.Module):
    """Units of a linear layer, and those of a recurrent one, which have no scale."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden, self.head = nn.GRU(5, 12, batch_first=True), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.hidden(self.rnn(x)[0][:, -1])))
        return out


@pytest.mark.parametrize("method", [Proximal(), DiffSparse()])
def test_units_without_scales_compete_with_the_others(method: Any) -> None:
    torch.manual_seed(0)
    given = analyse(trace(Recurrent().eval(), (torch.randn(2, 4, 5),)))
    session = method.start(Context(given, Budget("params", 0.7)))
    lost = {name: len(units) for name, units in session.wanted.items()}
    assert lost["rnn.weight_ih_l0"] and lost.get("hidden", 0) < 10  # of which all but two would go first
