"""Sums of products: linear layers, matrix products, einsum, convolutions."""

from __future__ import annotations

import string
from typing import Any

from compress.graph.einsum import einsum_terms
from compress.graph.labels import Factor, Value, contract, join, permute_take, reduce
from compress.graph.reshape import reshape
from compress.graph.rules.registry import Call, Cut, only, rewrite, rule


def _with_bias(call: Call, out: Value, bias: Value | None) -> Value:
    """Tie the bias to the last dim."""
    return out if bias is None else join(call.relations, out, bias)


@rule("aten::linear")
def linear(call: Call) -> Value:
    x, weight = call["input"], call["weight"]
    lead = string.ascii_uppercase[: x.rank - 1]
    out = contract(call.relations, [(x, lead + "i"), (weight, "oi")], lead + "o")
    return _with_bias(call, out, call.get("bias"))


def matrix_product(call: Call, x: Value, y: Value) -> Value:
    """``x @ y`` with broadcast batch dims; vectors get and lose a dim of size 1 as ``torch.matmul`` does."""
    if x.rank == 1:
        out = matrix_product(call, reshape(call.relations, x, (1, *x.shape)), y)
        return permute_take(out, [d for d in range(out.rank) if d != out.rank - (2 if y.rank > 1 else 1)])
    if y.rank == 1:
        out = matrix_product(call, x, reshape(call.relations, y, (*y.shape, 1)))
        return permute_take(out, list(range(out.rank - 1)))
    lead = string.ascii_uppercase[: max(x.rank, y.rank) - 2]
    x_axes = lead[len(lead) - (x.rank - 2) :] + "mk"
    y_axes = lead[len(lead) - (y.rank - 2) :] + "kn"
    return contract(call.relations, [(x, x_axes), (y, y_axes)], lead + "mn")


@rule("aten::matmul", "aten::mm", "aten::bmm")
def matmul(call: Call) -> Value:
    other = call.get("other") or call.get("mat2")
    return matrix_product(call, call["self"], other)


@rule("aten::addmm", "aten::baddbmm")
def addmm(call: Call) -> Value:
    first, second = (call.get("mat1") or call.get("batch1")), (call.get("mat2") or call.get("batch2"))
    return join(call.relations, matrix_product(call, first, second), call["self"])


@rule("aten::einsum")
def einsum(call: Call) -> Value:
    """Any einsum without repeated letters in one operand; ``...`` is given letters of its own."""
    values: list[Value] = list(call["tensors"])
    terms, out = einsum_terms(call["equation"], [v.rank for v in values])
    if any(len(set(t)) < len(t) for t in terms):
        for value in values:
            call.relations.pin_all(value.factors, "einsum that takes a diagonal")
        return Value(call.shape)
    return contract(call.relations, list(zip(values, terms, strict=True)), out)


def _grouped(call: Call, x: Value, weight: Value, groups: int, transposed: bool) -> Value:
    """Labels along the output channels of a convolution, as a value of shape (1, O) whose block is the group."""
    relations = call.relations
    channels = Value((x.shape[1],), tuple(Factor(f.labels.reshape(-1), 0) for f in x.along(1)))
    w = reshape(relations, _matrix(weight), (groups, weight.shape[0] // groups, weight.shape[1]))
    axes = "gio" if transposed else "goi"  # (I, O / groups, ...) or (O, I / groups, ...)
    split = reshape(relations, channels, (groups, x.shape[1] // groups))
    out = contract(relations, [(split, "gi"), (w, axes)], "go")
    return reshape(relations, out, (out.shape[0] * out.shape[1],))


def _matrix(weight: Value) -> Value:
    """A convolution weight without its kernel dims, along which nothing is ever removed."""
    factors = tuple(Factor(f.labels.reshape(f.labels.shape[:2]), f.axis) for f in weight.factors if f.axis < 2)
    return Value(weight.shape[:2], factors)


def _convolution(call: Call, transposed: bool) -> Value:
    x, weight, bias = call["input"], call["weight"], call.get("bias")
    relations = call.relations
    unbatched = x.rank == weight.rank - 1
    if unbatched:
        x = reshape(relations, x, (1, *x.shape))
    kept = only(call, x, (0, 1), "spatial dimension of a convolution")
    if any(f.labels.shape[d] > 1 for f in kept for d in range(x.rank) if d != f.axis):
        # Channels that differ by image or position cannot meet one weight.
        kept = tuple(Factor(_aligned(call, f), f.axis) for f in kept)
    x = Value(x.shape, kept)
    only(call, weight, (0, 1), "kernel position of a convolution")
    out = _grouped(call, x, weight, int(call.get("groups", 1)), transposed)
    if bias is not None:
        out = join(relations, out, bias)
    shape = (1, *call.shape) if unbatched else call.shape
    small = (1, out.shape[0], *(1,) * (len(shape) - 2))
    factors = [Factor(f.labels.reshape(small), 1) for f in out.factors]
    factors += [f for f in x.factors if f.axis == 0]
    value = Value(shape, tuple(factors))
    return reshape(relations, value, call.shape) if unbatched else value


def _aligned(call: Call, factor: Factor) -> Any:
    labels = factor.labels
    for block in factor.blocks():
        labels = call.relations.align(labels, block)
    return labels


@rule("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution")
def convolution(call: Call) -> Value:
    return _convolution(call, bool(call.get("transposed", False)))


@rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def conv_transpose(call: Call) -> Value:
    return _convolution(call, True)


@rewrite(
    "aten::conv1d",
    "aten::conv2d",
    "aten::conv3d",
    "aten::convolution",
    "aten::conv_transpose1d",
    "aten::conv_transpose2d",
    "aten::conv_transpose3d",
)
def fewer_groups(cut: Cut) -> dict[str, Any]:
    """A grouped convolution whose groups were removed whole."""
    groups = int(cut.call.get("groups", 1))
    if groups == 1:
        return {}
    x = cut["input"]
    channels = cut.kept.vector(x, x.rank - cut["weight"].rank + 1)
    return {"groups": int(channels.reshape(groups, -1).any(1).sum())}


@rule("aten::outer", "aten::ger")
def outer(call: Call) -> Value:
    x, y = call.values()
    return contract(call.relations, [(x, "a"), (y, "b")], "ab")


@rule("aten::dot", "aten::vdot")
def dot(call: Call) -> Value:
    x, y = call.values()
    return reduce(call.relations, join(call.relations, x, y), [0])
