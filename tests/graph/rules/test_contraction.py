from __future__ import annotations

from typing import Any

import pytest


def test_linear_unifies_columns_with_the_input_and_gives_rows(bench: Any) -> None:
    x, weight, bias = bench.tensor(3, 4, along=[1]), bench.tensor(2, 4), bench.tensor(2)
    out = bench("linear", (3, 2), input=x, weight=weight, bias=bias)
    assert bench.along(out, 1) == [[5, 6]]  # x: 1..4, rows: 5 6, columns: 7..10, bias: 11 12
    assert bench.edges == {(1, 7), (2, 8), (3, 9), (4, 10), (5, 11), (6, 12)}


def test_matmul_of_two_activations_shares_the_contracted_dim(bench: Any) -> None:
    x, y = bench.tensor(1, 2, 4, along=[2]), bench.tensor(4, 3)
    out = bench("matmul", (1, 2, 3), self=x, other=y)
    assert bench.along(out, 2) == [[9, 10, 11]]
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


@pytest.mark.parametrize(("left", "right", "out"), [((4,), (4, 2), (2,)), ((2, 4), (4,), (2,)), ((4,), (4,), ())])
def test_matmul_with_vectors(bench: Any, left: Any, right: Any, out: Any) -> None:
    x, y = bench.tensor(*left, along=[len(left) - 1]), bench.tensor(*right, along=[0])
    bench("matmul", out, self=x, other=y)
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}


def test_addmm_ties_the_bias(bench: Any) -> None:
    bias, x, y = bench.tensor(2), bench.fixed(3, 4), bench.tensor(4, 2, along=[1])
    bench("addmm", (3, 2), self=bias, mat1=x, mat2=y)
    assert bench.edges == {(1, 3), (2, 4)}


@pytest.mark.parametrize("equation", ["bi,oi->bo", "bi, oi -> bo", "...i,oi->...o", "bi,oi"])
def test_einsum_notations_agree(bench: Any, equation: str) -> None:
    x, weight = bench.tensor(3, 4, along=[1]), bench.tensor(2, 4)
    out = bench("einsum", (3, 2), equation=equation, tensors=[x, weight])
    assert bench.along(out, 1) == [[5, 6]]
    assert bench.edges == {(1, 7), (2, 8), (3, 9), (4, 10)}


def test_einsum_over_a_diagonal_pins(bench: Any) -> None:
    bench("einsum", (4,), equation="ii->i", tensors=[bench.tensor(4, 4)])
    assert bench.pinned == list(range(1, 9))
    assert bench.reasons == {"einsum that takes a diagonal"}


def test_convolution(bench: Any) -> None:
    x, weight = bench.tensor(1, 4, 5, 5, along=[1]), bench.tensor(2, 4, 3, 3)
    out = bench("conv2d", (1, 2, 3, 3), input=x, weight=weight)
    assert bench.along(out, 1) == [[5, 6]]
    assert {(1, 7), (2, 8), (3, 9), (4, 10)} <= bench.edges
    assert bench.pinned == list(range(11, 17))
    assert bench.reasons == {"kernel position of a convolution"}


def test_unbatched_convolution(bench: Any) -> None:
    x, weight = bench.tensor(4, 9, along=[0]), bench.tensor(2, 4, 3, along=[0, 1])
    out = bench("conv1d", (2, 7), input=x, weight=weight)
    assert bench.along(out, 0) == [[5, 6]]
    assert bench.edges == {(1, 7), (2, 8), (3, 9), (4, 10)}


def test_depthwise_convolution_ties_input_to_output(bench: Any) -> None:
    x, weight = bench.tensor(1, 4, 5, along=[1]), bench.tensor(4, 1, 3, along=[0])
    out = bench("conv1d", (1, 4, 3), input=x, weight=weight, groups=4)
    (labels,) = bench.along(out, 1)
    linked = {frozenset(pair) for pair in bench.edges}
    for channel in range(4):  # 1..4 are the input's channels, 5..8 the weight's
        assert frozenset((channel + 1, channel + 5)) in linked or labels[channel] in (channel + 1, channel + 5)
    changes = bench.rewrite([2, 6], "conv1d", (1, 4, 3), input=x, weight=weight, groups=4)
    assert changes == {"groups": 3}


def test_grouped_convolution_splits_both_sides_into_blocks(bench: Any) -> None:
    """Two groups: 4 input channels as 2 x 2 meet 2 columns each; 4 outputs as 2 x 2."""
    x, weight = bench.tensor(1, 4, 5, along=[1]), bench.tensor(4, 2, 3, along=[0, 1])
    out = bench("conv1d", (1, 4, 3), input=x, weight=weight, groups=2)
    assert len(out.along(1)) == 2  # whole groups, and channels inside them
    assert len(bench.relations.definitions) == 2  # channels of x and rows of the weight
    assert len(bench.relations.block_labels) == 2


def test_transposed_convolution_reads_rows_and_gives_columns(bench: Any) -> None:
    x, weight, bias = bench.tensor(1, 4, 5, along=[1]), bench.tensor(4, 2, 3, along=[0, 1]), bench.tensor(2)
    out = bench("conv_transpose1d", (1, 2, 7), input=x, weight=weight, bias=bias)
    assert bench.along(out, 1) == [[9, 10]]
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8), (9, 11), (10, 12)}


def test_spatial_labels_are_pinned(bench: Any) -> None:
    bench("conv1d", (1, 2, 2), input=bench.tensor(1, 4, 4, along=[2]), weight=bench.fixed(2, 4, 3))
    assert bench.pinned == [1, 2, 3, 4]
    assert bench.reasons == {"spatial dimension of a convolution"}


def test_products_of_vectors(bench: Any) -> None:
    x, y = bench.tensor(4), bench.tensor(4)
    assert bench("dot", (), self=x, tensor=y).factors == ()
    assert bench.edges == {(1, 5), (2, 6), (3, 7), (4, 8)}
    out = bench("outer", (4, 4), self=x, vec2=y)
    assert (bench.along(out, 0), bench.along(out, 1)) == ([[1, 2, 3, 4]], [[5, 6, 7, 8]])
