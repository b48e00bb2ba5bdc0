"""The oracle must see every kind of mistake that a slicer could make."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from compress.graph import run_masked, slice_graph, verify
from compress.graph.double import as_double, double_by_default
from compress.graph.verify import compare


def network(lab: Any) -> nn.Module:
    def forward(m: Any, x: Any) -> Any:
        n, t, _ = x.shape
        q, k, v = m.qkv(m.n1(x)).reshape(n, t, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + m.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return m.head(m.down(torch.relu(m.up(m.n2(x)))).mean(1))

    return lab.network(
        lambda m, x: forward(m, m.stem(x)),
        stem=nn.Linear(5, 8),
        n1=nn.LayerNorm(8),
        qkv=nn.Linear(8, 24),
        o=nn.Linear(8, 8),
        n2=nn.RMSNorm(8),
        up=nn.Linear(8, 12),
        down=nn.Linear(12, 6),
        head=nn.Linear(6, 3),
    )


@pytest.fixture(scope="module")
def outcome(lab: Any) -> Any:
    made = lab.prune(network(lab), torch.randn(2, 4, 5), ratio=0.4)
    assert made.verification.passed
    return made


def judged(outcome: Any, sliced: fx.GraphModule) -> float:
    found = verify(outcome.coupling, outcome.alive, sliced)
    assert not found.passed
    return found.error


SLICED = ("stem.weight", "stem.bias", "n1.weight", "n2.weight", "qkv.weight", "qkv.bias", "o.weight", "up.weight")


@pytest.mark.parametrize("name", SLICED)
def test_one_wrong_number_is_seen(outcome: Any, name: str) -> None:
    sliced = copy.deepcopy(outcome.sliced)
    with torch.no_grad():
        sliced.get_parameter(name).view(-1)[0] += 1e-3
    assert judged(outcome, sliced) > 1e-9


@pytest.mark.parametrize("name", SLICED)
def test_two_kept_indices_swapped_in_one_tensor_are_seen(outcome: Any, name: str) -> None:
    sliced = copy.deepcopy(outcome.sliced)
    (dim, *_) = outcome.coupling.kept(outcome.alive)[name]
    with torch.no_grad():
        weight = sliced.get_parameter(name)
        order = torch.arange(weight.shape[dim])
        order[[0, -1]] = order[[-1, 0]]
        weight.copy_(weight.index_select(dim, order))
    assert judged(outcome, sliced) > 1e-9


def test_another_set_of_units_is_seen(lab: Any, outcome: Any) -> None:
    other = slice_graph(outcome.coupling, lab.removal(outcome.coupling, 0.4, seed=1))
    assert judged(outcome, other) > 1e-6


def test_wrong_attention_scale_is_seen(outcome: Any) -> None:
    sliced = copy.deepcopy(outcome.sliced)
    call = next(n for n in sliced.graph.nodes if "scaled_dot" in str(n.target))
    call.kwargs = {k: v for k, v in call.kwargs.items() if k != "scale"}
    sliced.recompile()
    assert judged(outcome, sliced) > 1e-9


def test_network_that_cannot_run_is_a_problem_not_a_crash(outcome: Any) -> None:
    sliced = copy.deepcopy(outcome.sliced)
    sliced.head.weight = nn.Parameter(torch.zeros(3, 1))
    found = verify(outcome.coupling, outcome.alive, sliced)
    assert not found.passed
    assert found.problem.startswith("the sliced network does not run")


def test_wrong_size_of_an_output_is_a_problem(outcome: Any) -> None:
    sliced = copy.deepcopy(outcome.sliced)
    sliced.head.weight, sliced.head.bias = nn.Parameter(torch.zeros(2, 4)), nn.Parameter(torch.zeros(2))
    assert "shape [2, 2] instead of [2, 3]" in verify(outcome.coupling, outcome.alive, sliced).problem


def test_compare() -> None:
    a = torch.tensor([1.0, -4.0], dtype=torch.float64)
    assert compare([a], [a + 0.004], 1e-9).error == pytest.approx(1e-3)
    assert compare([torch.zeros(2)], [torch.zeros(2)], 1e-9).passed
    assert compare([torch.tensor([1, 2])], [torch.tensor([1, 3])], 1e-9).error == 1.0
    assert compare([a / 0], [a / 0], 1e-9).problem == "an output is not finite"
    assert compare([a], [a[:1]], 1e-9).problem == "an output has shape [1] instead of [2]"


def test_masked_run_removes_from_mean_and_norm_statistics(lab: Any) -> None:
    """Removed entries do not count: by hand on two channels that stay of four."""
    module = lab.network(lambda m, x: m.o(m.n(m.i(x))), i=nn.Linear(3, 4), n=nn.LayerNorm(4), o=nn.Linear(4, 2))
    x = torch.randn(2, 3)
    coupling = lab.analyse(module, x)
    (got,) = run_masked(coupling, coupling.alive({coupling.groups[0].name: [0, 3]}), [x])
    with torch.no_grad(), double_by_default():
        wide = copy.deepcopy(module).double()
        y = wide.i(x.double())[:, [1, 2]]
        y = (y - y.mean(1, keepdim=True)) / torch.sqrt(y.var(1, unbiased=False, keepdim=True) + 1e-5)
        y = y * wide.n.weight[[1, 2]] + wide.n.bias[[1, 2]]
        expected = y @ wide.o.weight[:, [1, 2]].T + wide.o.bias
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_double_copy_owns_its_tensors_and_raises_casts(lab: Any) -> None:
    module = lab.network(lambda m, x: m.o(m.i(x).to(torch.bfloat16).float()), i=nn.Linear(3, 4), o=nn.Linear(4, 2))
    graph = lab.analyse(module, torch.randn(2, 3)).program.module
    wide = as_double(graph)
    assert wide(torch.randn(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert all(b.data_ptr() != a.data_ptr() for a, b in zip(graph.parameters(), wide.parameters(), strict=False))
    assert torch.get_default_dtype() == torch.float32


def test_nothing_removed_is_exact(outcome: Any) -> None:
    everything = np.ones_like(outcome.alive)
    sliced = slice_graph(outcome.coupling, everything)
    assert verify(outcome.coupling, everything, sliced).error < 1e-15
    assert sliced.get_parameter("head.weight") is outcome.coupling.program.module.get_parameter("head.weight")
