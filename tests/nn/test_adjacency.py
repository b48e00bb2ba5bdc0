"""A learned adjacency matrix: its scaling, its zeros, its penalty, its score, and how it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.export import export_onnx
from compress.graph import trace
from compress.nn import FixedAdjacency, LearnedAdjacency, relationship_score
from compress.nn.adjacency import balanced, p_norms, sinkhorn, within


def with_support(size: int, seed: int = 0, share: float = 0.3) -> Tensor:
    """(size, size) in float64, a share of it not zero and the diagonal besides, so that a scaling exists."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(size, size, generator=generator, dtype=torch.float64)
    return values * (torch.rand(size, size, generator=generator) < share) + torch.eye(size)


def test_sums_of_one_after_fifty_iterations() -> None:
    found = balanced(with_support(50), 50)
    for dim in (0, 1):
        assert float((found.sum(dim) - 1).abs().max()) <= 1e-6
    assert torch.equal(found == 0, with_support(50) == 0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(2, 12))
def test_both_scalings_have_the_same_limit(seed: int, size: int) -> None:
    matrix = with_support(size, seed) + 0.1
    assert float((balanced(matrix, 300) - sinkhorn(matrix, 300)).abs().max()) <= 1e-9


@pytest.mark.parametrize("scale", [balanced, sinkhorn])
def test_other_sums_and_empty_rows(scale: Any) -> None:
    matrix = with_support(6)
    rows, columns = torch.arange(1.0, 7.0).double(), torch.full((6,), 3.5).double()
    found = scale(matrix + 0.2, 200, rows, columns)
    torch.testing.assert_close(found.sum(1), rows)
    torch.testing.assert_close(found.sum(0), columns)
    matrix[2], matrix[:, 4] = 0, 0
    empty = scale(matrix, 20)
    assert bool(torch.isfinite(empty).all()) and not empty[2].any() and not empty[:, 4].any()


def test_scaling_by_hand() -> None:
    """Rows of sums 4 and 1, columns of sums 2 and 3: each element over the root of both."""
    matrix = torch.tensor([[2.0, 2.0], [0.0, 1.0]])
    root = torch.tensor([[8.0, 12.0], [2.0, 3.0]]).sqrt()
    torch.testing.assert_close(balanced(matrix, 1), matrix / root)
    torch.testing.assert_close(sinkhorn(matrix, 1), torch.tensor([[1.0, 1 / 3], [0.0, 2 / 3]]))


def test_p_norms_and_their_gradients() -> None:
    matrix = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.0] * 4], dtype=torch.float64, requires_grad=True)
    norms = p_norms(matrix, 1)
    assert norms.tolist() == pytest.approx([1, 4, 0], rel=1e-6)
    norms.sum().backward()
    grad = matrix.grad
    assert grad is not None and bool(torch.isfinite(grad).all())
    assert grad[0, 1:].tolist() == [0, 0, 0] and grad[1].tolist() == pytest.approx([4] * 4, rel=1e-6)


def test_score_by_hand() -> None:
    """A path 0 - 1 - 2. What lies within one step: of the rows 1, 1 and 3/4, of the columns 1/2, 1 and 1."""
    path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert within(path, 1).tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    assert bool(within(path, 2).all()) and torch.equal(within(path, 0), torch.eye(3, dtype=torch.bool))
    learned = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [1.0, 0.0, 3.0]])
    rows, columns = (1 + 1 + 0.75) / 3, (0.5 + 1 + 1) / 3
    assert relationship_score(learned, path, 1) == pytest.approx((rows + columns) / 2)
    assert relationship_score(learned, path, 2) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(0, 3))
def test_score_lies_between_none_and_all(seed: int, steps: int) -> None:
    graph, matrix = with_support(9, seed, 0.2), with_support(9, seed + 1)
    score = relationship_score(matrix, graph, steps)
    assert 0 <= score <= 1 + 1e-12
    assert relationship_score(matrix * within(graph, steps), graph, steps) == pytest.approx(1)
    assert score <= relationship_score(matrix, graph, steps + 1) + 1e-12


@pytest.mark.parametrize("normalise", ["balanced", "sinkhorn", "none"])
def test_the_start_is_exact(normalise: Any) -> None:
    matrix = with_support(20) / 20
    learned = LearnedAdjacency(matrix, normalise, rows=matrix.sum(1), columns=matrix.sum(0))
    assert float((learned.matrix() - matrix).detach().abs().max()) <= 1e-12
    assert torch.equal(learned.matrix() == 0, matrix == 0)
    single = LearnedAdjacency(matrix.float(), normalise, rows=matrix.float().sum(1), columns=matrix.float().sum(0))
    assert float((single.matrix() - matrix.float()).detach().abs().max()) <= 1e-6


def test_the_formula_by_hand() -> None:
    learned = LearnedAdjacency(torch.ones(2, 2), "none")
    with torch.no_grad():
        learned.alpha.copy_(torch.tensor([[4.0, 1.0], [2.0, 3.0]]).log())
        learned.row_threshold.copy_(torch.logit(torch.tensor([0.1, 0.2])))
        learned.column_threshold.copy_(torch.logit(torch.tensor([0.05, 0.25])))
    # Rows take 0.5 and 1, columns 0.3 and 1
    torch.testing.assert_close(learned.matrix(), torch.tensor([[3.2, 0.0], [0.7, 1.0]]))


def test_from_a_number_of_nodes() -> None:
    learned = LearnedAdjacency(30)
    assert int(torch.count_nonzero(learned.matrix())) == 900
    assert float((learned.matrix().sum(1) - 1).detach().abs().max()) < 1e-5
    assert float(learned.penalty().detach()) == pytest.approx(
        30 * 30, rel=0.01
    )  # each of 60 rows and columns has 30, halved
    penalty = learned.penalty()
    penalty.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in learned.parameters())
    assert "nodes=30" in repr(learned)


@pytest.mark.parametrize("normalise", ["balanced", "sinkhorn"])
def test_a_row_and_a_column_without_elements_have_finite_gradients(normalise: Any) -> None:
    learned = LearnedAdjacency(with_support(6).float(), normalise)
    with torch.no_grad():
        learned.row_threshold[2] = learned.column_threshold[4] = 9.0
    matrix = learned.matrix()
    assert not matrix[2].any() and not matrix[:, 4].any() and bool(matrix.any())
    (matrix.square().sum() + learned.penalty(matrix=matrix)).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in learned.parameters())


def test_the_penalty_empties_a_matrix_that_nothing_needs() -> None:
    """At p = 0.5 competition leaves few in each row; no step of it is no number."""
    torch.manual_seed(0)
    learned = LearnedAdjacency(12)
    optimizer = torch.optim.Adam(learned.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        learned.penalty().backward()
        optimizer.step()
        assert all(bool(torch.isfinite(p).all()) for p in learned.parameters())
    assert 0 < int(torch.count_nonzero(learned.matrix())) < 40


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (torch.ones(2, 3), "square"),
        (torch.ones(3), "square"),
        (-torch.eye(3), "no negative"),
        (torch.full((2, 2), torch.nan), "finite"),
        (torch.zeros(3, 3), "nothing to start from"),
    ],
)
def test_matrices_that_are_refused(start: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LearnedAdjacency(start)


class Network(nn.Module):
    def __init__(self, mix: nn.Module) -> None:
        super().__init__()
        self.mix, self.layer = mix, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.mix(x))
        return out


def test_fixed_and_as_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learned = LearnedAdjacency(with_support(7).float())
    network = Network(learned).train()
    fixed = learned.fixed()
    assert learned.training and isinstance(fixed, FixedAdjacency) and not list(fixed.parameters())
    assert "edges=" in repr(fixed)
    x = torch.randn(4, 7, 3)
    expected = network.eval()(x).detach()
    network.mix = fixed
    torch.testing.assert_close(network(x).detach(), expected)
    exported = export_onnx(trace(network, (x,)).module, (x,), tmp_path / "model.onnx")
    (got,) = onnxruntime.InferenceSession(exported.path).run(None, {"input": x.numpy()})
    assert float(np.abs(got - expected.numpy()).max()) <= 1e-5
