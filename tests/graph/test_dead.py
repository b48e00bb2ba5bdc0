"""Units that masks leave dead: read by nothing, or reached by nothing with their constant carried on."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import DeadRemoval, analyse, carry, remove_dead, trace
from compress.graph.double import double_by_default


def removal(module: nn.Module, *inputs: Tensor, zero: dict[str, Any] | None = None) -> DeadRemoval:
    """What goes of a module in float64 once the named indices of its tensors are zero; checked on other inputs."""
    module = module.double().eval()
    with torch.no_grad():
        for name, where in (zero or {}).items():
            dict(module.named_parameters())[name][where] = 0
    result = remove_dead(analyse(trace(module, tuple(x.double() for x in inputs))), {})
    assert result.verification.passed and not result.rolled_back
    with torch.no_grad(), double_by_default():
        other = [torch.randn(5, *x.shape[1:]) for x in inputs]
        assert torch.allclose(result.module(*other), module(*other), rtol=0, atol=1e-9)
    return result


def gone(result: DeadRemoval) -> dict[str, list[int]]:
    return {name: units.tolist() for name, units in result.removed.items()}


def test_dead_units_go_exactly_and_constants_are_carried() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        module.get_parameter("0.bias").copy_(torch.tensor([0.7, -0.4, 0.2, 0.1, 0.3]))
    first, second = torch.ones(5, 3, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    first[0] = False  # nothing reaches unit 0: it puts out relu(0.7)
    first[1] = False  # nor unit 1: it puts out relu(-0.4) = 0
    second[:, 2] = False  # nothing reads unit 2
    result = remove_dead(analyse(trace(module, (torch.randn(2, 3),))), {"0.weight": first, "2.weight": second})
    assert {n: u.tolist() for n, u in result.removed.items()} == {"0": [0, 1, 2]}
    assert result.carried == {"0": 1} and result.verification.passed
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(first)
        module.get_parameter("2.weight").mul_(second)
        x = torch.randn(7, 3)
        assert torch.allclose(result.module(x), module(x), atol=1e-6)
    assert result.module.get_parameter("0.weight").shape == (2, 3)


def test_a_constant_is_not_carried_through_zero_padding() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)).eval()
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(0.5)
    mask = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    mask[0] = False
    result = remove_dead(analyse(trace(module, (torch.randn(2, 1, 5, 5),))), {"0.weight": mask})
    assert not result.removed and result.verification.passed


class Attention(nn.Module):
    """Two heads of four features."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
        self.o, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(2, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y: torch.Tensor = nn.functional.scaled_dot_product_attention(q, k, v)
        y = self.head(self.o(y.transpose(1, 2).flatten(2)))
        return y


@pytest.mark.parametrize(("dead", "gone"), [([1], []), ([1, 6], [1, 6]), ([1, 2, 6], [1, 6])])
def test_as_many_dead_features_go_in_each_head(dead: list[int], gone: list[int]) -> None:
    """Heads stay equally wide; a dead feature that has no counterpart in the other head stays as zeros."""
    torch.manual_seed(0)
    coupling = analyse(trace(Attention().eval(), (torch.randn(2, 5, 6),)))
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[:, dead] = False
    result = remove_dead(coupling, {"o.weight": mask})
    assert {n: u.tolist() for n, u in result.removed.items()} == ({"v": gone} if gone else {})
    assert result.verification.passed


def test_chains_go_at_once() -> None:
    """Unit 0 of the last hidden layer is not read: what only it reads goes, and so on to the first layer."""
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
    only = (slice(1, None), 0)  # the others do not read unit 0
    result = removal(
        nn.Sequential(*layers),
        torch.randn(2, 3),
        zero={"6.weight": (slice(None), 0), "4.weight": only, "2.weight": only},
    )
    assert gone(result) == {"0": [0], "2": [0], "4": [0]}
    assert result.carried == {}


def test_constants_go_on_from_layer_to_layer() -> None:
    """Unit 1 is a constant, unit 2 behind it reads nothing else, and so is a constant as well."""
    layers = [nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    zero = {"0.weight": 1, "2.weight": (2, [0, 2, 3])}
    result = removal(nn.Sequential(*layers), torch.randn(2, 3), zero=zero)
    assert gone(result) == {"0": [1], "2": [2]}
    assert result.carried == {"0": 1, "2": 1}


def test_what_is_never_active_in_the_example_is_no_constant() -> None:
    """A ReLU that is silent on all inputs of the trace may speak on others."""
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        module.get_parameter("0.weight").fill_(1.0)
        module.get_parameter("0.bias").copy_(torch.tensor([-3.0, 1.0, 1.0]))
    result = removal(module, torch.zeros(2, 2))
    assert gone(result) == {}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = x + self.a(x)
        out: Tensor = self.head(x + torch.relu(self.b(x)))
        return out


def test_a_stream_loses_what_every_layer_leaves_constant() -> None:
    """Channel 1: all three add constants. Channel 2: the last adds something. Channel 3: nothing reads it."""
    zero = {"stem.weight": [1, 2], "a.weight": [1, 2], "b.weight": 1}
    result = removal(Residual(), torch.randn(2, 3), zero=zero)
    assert gone(result) == {"stem": [1]} and result.carried == {"stem": 1}
    unread = {name: (slice(None), 3) for name in ("a.weight", "b.weight", "head.weight")}
    assert gone(removal(Residual(), torch.randn(2, 3), zero=unread)) == {"stem": [3]}


class Dense(nn.Module):
    """Two layers and what they read, side by side (as in a DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.first(x))
        out: Tensor = self.head(torch.cat([y, torch.relu(self.second(y))], 1)).mean((2, 3))
        return out


def test_concatenations() -> None:
    """The first layer's channel 0 is a constant for both its readers; channel 1 is read by the second layer alone."""
    zero = {"first.weight": 0, "head.weight": (slice(None), [1, 4])}
    result = removal(Dense(), torch.randn(2, 2, 3, 3), zero=zero)
    assert gone(result) == {"first": [0], "second": [1]}
    assert result.carried == {"first": 1}


def padded(bias: float, padding: int, norm: bool = True) -> nn.Sequential:
    """A channel that its norm makes a constant, in front of a convolution."""
    layers = [
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, padding=padding, bias=False),
    ]
    layers += [nn.BatchNorm2d(2)] if norm else []
    module = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))
    module(torch.zeros(2, 1, 7, 7))
    with torch.no_grad():
        module.get_parameter("1.weight")[0], module.get_parameter("1.bias")[0] = 0.0, bias
    return module.eval()


@pytest.mark.parametrize(
    ("bias", "padding", "goes"), [(-1.0, 1, True), (0.5, 1, False), (-1.0, 0, True), (0.5, 0, True)]
)
def test_scales_of_zero_and_padding(bias: float, padding: int, goes: bool) -> None:
    """Zero goes anywhere. Another constant is another one at padded edges, so it stays there."""
    result = removal(padded(bias, padding), torch.randn(2, 1, 7, 7))
    assert gone(result) == ({"0": [0]} if goes else {})


def test_a_norm_takes_over_what_a_layer_without_bias_reads() -> None:
    result = removal(padded(0.5, 0), torch.randn(2, 1, 7, 7))
    assert "3.bias" not in dict(result.module.named_parameters())
    assert result.carried == {"0": 1}


def test_a_layer_without_bias_gets_one() -> None:
    result = removal(padded(0.5, 0, norm=False), torch.randn(2, 1, 7, 7))
    assert result.module.get_parameter("3.bias").shape == (2,)
    assert result.carried == {"0": 1}


def test_a_layer_that_is_dead_as_a_whole_keeps_one_unit() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    result = removal(module, torch.randn(2, 3), zero={"2.weight": slice(None)})
    assert {n: len(u) for n, u in result.removed.items()} == {"0": 3, "2": 4}
    assert result.left == {"0": 1, "2": 1}


def test_groups_of_a_convolution_take_over_their_own_constants() -> None:
    """One channel of each of the two groups is a constant."""
    module = nn.Sequential(
        nn.Conv2d(1, 6, 1), nn.Sigmoid(), nn.Conv2d(6, 4, 2, groups=2), nn.Flatten(), nn.Linear(16, 2)
    )
    result = removal(module, torch.randn(2, 1, 3, 3), zero={"0.weight": [1, 3]})
    assert gone(result) == {"0": [1, 3]} and result.carried == {"0": 2}
    one = removal(copy.deepcopy(module), torch.randn(2, 1, 3, 3), zero={"0.weight": [1, 3], "2.weight": 0})
    assert gone(one) == {"0": [1, 3]}


def test_what_is_normalised_over_features_stays() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    result = removal(module, torch.randn(2, 3), zero={"0.weight": 1, "2.weight": (slice(None), 2)})
    assert gone(result) == {}


def test_queries_that_meet_zeros_and_values_that_are_constants() -> None:
    zero = {"q.weight": [1, 5], "q.bias": [1, 5], "v.weight": [0, 6]}
    result = removal(Attention(), torch.randn(2, 5, 6), zero=zero)
    assert gone(result) == {"q": [1, 5], "v": [0, 6]}
    assert result.carried == {"v": 2}


def test_only_the_groups_that_are_asked_for() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    coupling = analyse(trace(layers, (torch.randn(2, 3),)))
    masks = {n: torch.ones(s, dtype=torch.bool) for n, s in (("2.weight", (4, 4)), ("4.weight", (2, 4)))}
    masks["2.weight"][:, 0] = False
    masks["4.weight"][:, 1] = False
    assert gone(remove_dead(coupling, masks)) == {"0": [0], "2": [1]}
    assert gone(remove_dead(coupling, masks, ["2"])) == {"2": [1]}


def test_numbers_that_are_not_finite() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    coupling = analyse(trace(nn.Sequential(layer, nn.Linear(4, 2)).eval(), (torch.randn(2, 3),)))
    name = next(n for n in coupling.program.module.state_dict() if n.endswith("original1"))
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[0] = False
    with pytest.raises(ModelError, match="not finite"):
        remove_dead(coupling, {name: mask})


def test_a_constant_that_was_carried_wrongly_costs_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "_shift", lambda weight, constants, groups: 2 * weight @ constants)
    module = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)).eval()
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1] = False
    result = remove_dead(analyse(trace(module, (torch.randn(2, 3),))), {"0.weight": mask})
    assert not result.removed and result.left == {"0": 1}
    assert result.rolled_back == {"0": "its constants cannot be carried on exactly"}
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(mask)
    x = torch.randn(5, 3)
    assert torch.equal(result.module(x), module(x))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(2, 5))
def test_every_unit_that_is_cut_off_goes(seed: int, depth: int) -> None:
    """In a chain of linear layers with biases, nothing that is cut off may stay but the last of its layer."""
    rng = np.random.default_rng(seed)
    sizes = [3, *rng.integers(2, 7, depth).tolist(), 2]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    module = nn.Sequential(*layers[:-1])
    parameters = dict(module.named_parameters())
    forced: dict[str, set[int]] = {}
    with torch.no_grad():
        for i, size in enumerate(sizes[1:-1]):
            for unit in np.flatnonzero(rng.random(size) < 0.5):
                forced.setdefault(str(2 * i), set()).add(int(unit))
                if rng.random() < 0.5:
                    parameters[f"{2 * i}.weight"][unit] = 0
                else:
                    parameters[f"{2 * i + 2}.weight"][:, unit] = 0
    result = removal(module, torch.randn(2, 3))
    for name, units in forced.items():
        removed = result.removed.get(name, np.zeros(0))
        assert len(units - set(removed.tolist())) <= result.left.get(name, 0)
        if name in result.left:  # all of the layer is dead
            assert result.left[name] == 1 and len(removed) + 1 == parameters[f"{name}.bias"].numel()
